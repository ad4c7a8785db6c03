"""Bias correction: quantized weights shift the mean output of a convolution, and a changed bias takes the shift back.

The error of a weight is the same for every photo, and after a ReLU inputs are never negative: errors that do not
cancel move a whole channel. Depthwise layers, with nine weights a channel, suffer most (Nagel et al. 2019, "Data-Free
Quantization Through Weight Equalization and Bias Correction", section 4.2; here with means measured on photos).
"""

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from training.inference import onnx_runtime
from training.inference.batches import Pixels

Floats = npt.NDArray[np.float32]

_PHOTOS = 64  # for the means: of the flower model, 16 photos and 128 gave logits equally near to those of fp32
_MAX_WEIGHT = 127  # of a symmetric int8 weight, whose scale is its channel's own
_TO_A_BATCH, _TO_A_CHANNEL = "correction_axis_batch", "correction_axes_all"


def correct(proto: onnx.ModelProto, pixels: Sequence[Pixels], excluded: Collection[str] = ()) -> None:
    """Change the biases of a graph in place, for weights that will be int8 with a scale for each output channel.

    `pixels` are batches uint8 [N, H, W, 3], at least one; `excluded` names nodes that stay in floats.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    rounded = [
        node
        for node in proto.graph.node
        if node.op_type == "Conv" and node.input[1] in tensors and node.name not in excluded
    ]
    errors = {node.output[0]: rounding_error(numpy_helper.to_array(tensors[node.input[1]])) for node in rounded}
    shifts = _shifts(proto, rounded, errors, _first(pixels))
    for node in rounded:
        shift = shifts[node.output[0]]
        if len(node.input) < 3:
            proto.graph.initializer.append(numpy_helper.from_array(-shift, f"{node.output[0]}_correction"))
            node.input.append(f"{node.output[0]}_correction")
        else:
            bias = tensors[node.input[2]]
            bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) - shift, bias.name))


def rounding_error(weight: Floats) -> Floats:
    """What rounding adds to weights [O, …]: symmetric, with a scale for each of the O channels."""
    largest = np.abs(weight).reshape(len(weight), -1).max(1).reshape(-1, *[1] * (weight.ndim - 1))
    scale = np.maximum(largest / _MAX_WEIGHT, np.finfo(np.float32).tiny)
    error: Floats = np.rint(weight / scale) * scale - weight
    return error


def _first(pixels: Sequence[Pixels]) -> list[Pixels]:
    """As many batches as hold the photos that are needed."""
    before = itertools.accumulate((len(batch) for batch in pixels), initial=0)
    return [batch for batch, photos in zip(pixels, before, strict=False) if photos < _PHOTOS]


def _shifts(
    proto: onnx.ModelProto, rounded: list[onnx.NodeProto], errors: dict[str, Floats], pixels: Sequence[Pixels]
) -> dict[str, Floats]:
    """Mean of each convolution's output [O] if its weights were the errors alone: convolution is linear."""
    measuring = _measuring(proto, rounded, errors)
    names = list(errors)
    means = [measuring.run([_shift(name) for name in names], {"pixels": batch}) for batch in pixels]
    counts = [len(batch) for batch in pixels]
    averages = (np.average(of_one, 0, counts).astype(np.float32) for of_one in zip(*means, strict=True))
    return dict(zip(names, averages, strict=True))


def _measuring(proto: onnx.ModelProto, rounded: list[onnx.NodeProto], errors: dict[str, Floats]) -> Any:
    """A session of the graph that also gives, for each convolution, the mean of its errors' output over a batch."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = copy.graph
    for name, axes in ((_TO_A_BATCH, [0]), (_TO_A_CHANNEL, [0, 2, 3])):
        graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
    for node in rounded:
        name = node.output[0]
        mean, weight, output = (f"{name}_correction_{part}" for part in ("mean", "weight", "output"))
        graph.initializer.append(numpy_helper.from_array(errors[name], weight))
        convolution = onnx.NodeProto.FromString(node.SerializeToString())
        convolution.name, convolution.input[:], convolution.output[:] = output, [mean, weight], [output]
        graph.node.extend([
            helper.make_node("ReduceMean", [node.input[0], _TO_A_BATCH], [mean], keepdims=1),
            convolution,
            helper.make_node("ReduceMean", [output, _TO_A_CHANNEL], [_shift(name)], keepdims=0),
        ])  # fmt: skip
        graph.output.append(helper.make_tensor_value_info(_shift(name), TensorProto.FLOAT, [len(errors[name])]))
    return onnx_runtime.session(copy.SerializeToString())


def _shift(name: str) -> str:
    return f"{name}_shift"
