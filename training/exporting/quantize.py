"""The exported graph in eight bits: static, per channel, uint8 activations and int8 weights, as QDQ.

The arithmetic is that of Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference". Ranges of activations are the extremes seen on training photos: percentiles and
entropy came as near to the logits of fp32 (within 0.077 to 0.080 on average, like these) and took 6 GB of memory.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from training.errors import QuantizationFailed
from training.exporting import bias_correction, stem
from training.inference import onnx_runtime
from training.inference.batches import Pixels

_OPERATIONS = (
    "Conv", "Gemm", "MatMul", "Clip", "Relu", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool",
    "Transpose", "Reshape",
)  # fmt: skip
_LINEAR = ("Conv", "Gemm", "MatMul")
_PREPARED = (
    "onnx.quant.pre_process",
    "onnxruntime.quant",
)  # without this mark the library asks for its own preprocessing


def to_int8(graph: bytes, pixels: Sequence[Pixels]) -> bytes:
    """The graph in int8, calibrated on batches uint8 [N, H, W, 3] of training photos; the same bytes for the same ones.

    The last linear layer and everything after it stay in float32: they cost little, and evidence, logits and
    probabilities then fit together as they did. Weights keep all eight bits: with seven, which could not saturate on
    CPUs without VNNI, MobileNetV2 lost 2.6 points on validation. The service asks for exact kernels instead.
    Raises `QuantizationFailed` and `LibraryMissing`.
    """
    if not len(pixels):
        raise QuantizationFailed("there are no photos to calibrate it with")
    onnx_runtime.version()  # first, as it keeps the runtime from reporting its use
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    proto = onnx.load_from_string(graph)
    on_bytes = stem.on_bytes(proto)
    _prepare(proto)
    excluded = _last_layer(proto.graph)
    with tempfile.TemporaryDirectory(prefix="anther-int8-") as folder:
        file = Path(folder) / "model.onnx"
        try:
            bias_correction.correct(proto, pixels, excluded)
            quantize_static(
                proto,
                file,
                _Reader(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATIONS),
                nodes_to_exclude=excluded,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"TensorQuantOverrides": _bytes_as_they_are() if on_bytes else {}},
            )
            quantized = onnx.load(file)
        except Exception as exc:  # the library raises ValueError, RuntimeError, AssertionError, its own …
            raise QuantizationFailed(str(exc) or type(exc).__name__) from exc
    if on_bytes:
        _without_cast(quantized.graph)
    del quantized.metadata_props[:]
    onnx.checker.check_model(quantized, full_check=True)
    return quantized.SerializeToString()


class _Reader:
    """The calibration data reader of `quantize_static`."""

    def __init__(self, pixels: Sequence[Pixels]) -> None:
        self._batches: Iterator[Pixels] = iter(pixels)

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def _prepare(proto: onnx.ModelProto) -> None:
    """The exporter has folded constants and shapes, so all that is missing is a name for every node."""
    for position, node in enumerate(proto.graph.node):
        node.name = node.name or f"node_{position}"
    key, value = _PREPARED
    proto.metadata_props.add(key=key, value=value)


def _last_layer(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes between the logits and the last linear layer, itself included, and of those after them."""
    makers = {output: node for node in graph.node for output in node.output}
    names = []
    waiting = [output.name for output in graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in names:
            continue
        names.append(node.name)
        if node.op_type not in _LINEAR:
            waiting.extend(node.input)
    return names


def _bytes_as_they_are() -> dict[str, list[dict[str, Any]]]:
    return {stem.PIXELS: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]}


def _without_cast(graph: onnx.GraphProto) -> None:
    """Bytes that become floats and, by a scale of one, bytes again are what they were."""
    cast = next(node for node in graph.node if stem.PIXELS in node.output)
    back = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == stem.PIXELS)
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == back.output[0]:
                node.input[position] = cast.input[0]
    graph.node.remove(back)
    graph.node.remove(cast)
