"""What normalising inside the graph costs on the CPU: `python -m benchmarks.normalisation [--rounds 400]`.

The bundle's graph is timed beside the same network fed with ready floats, and beside the naive spelling of the same
arithmetic with its layout change last and first. All take turns in one process on one thread; prints one JSON line.
"""

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.subject import photo_option
from bundle.repository import Repository

_WARM_UP = 20  # rounds
_SHIPPED = ["Cast", "Transpose", "Sub"]  # the scale is in the first convolution
_STD = np.array([0.229, 0.224, 0.225], np.float32)  # ImageNet's
_CLOSE = 1e-5  # of a logit

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Variant:
    """One way of getting from pixels to the first convolution."""

    name: str
    session: Any
    feed: dict[str, npt.NDArray[Any]]

    def logits(self) -> Floats:
        found: Floats = self.session.run(["logits"], self.feed)[0]
        return found

    def milliseconds(self) -> float:
        started = time.perf_counter()
        self.session.run(["probabilities", "logits"], self.feed)
        return (time.perf_counter() - started) * 1e3


def variants(shipped: ModelProto, pixels: npt.NDArray[np.uint8]) -> list[Variant]:
    """The graph as it is and the three that it is compared with, the one without any normalisation first."""
    mean = _initial(shipped, shipped.graph.node[len(_SHIPPED) - 1].input[1])
    first = shipped.graph.node[len(_SHIPPED)].input[1]
    scaled = {first: _initial(shipped, first) * 255 * _STD.reshape(1, 3, 1, 1)}
    ready = (pixels.transpose(0, 3, 1, 2) - mean).astype(np.float32)
    return [
        Variant("ready", _session(_with_front(shipped, [], {})), {"ready": np.ascontiguousarray(ready)}),
        Variant("shipped", _session(shipped), {"pixels": pixels}),
        Variant("naive", _session(_naive(shipped, mean, scaled, last=True)), {"pixels": pixels}),
        Variant("naive_planes", _session(_naive(shipped, mean, scaled, last=False)), {"pixels": pixels}),
    ]


def _naive(shipped: ModelProto, mean: Floats, scaled: dict[str, Floats], *, last: bool) -> ModelProto:
    """Cast, Div, Sub, Div, with the layout change `last` or right after Cast."""
    make = helper.make_node
    shape = (1, 1, 1, 3) if last else (1, 3, 1, 1)
    constants = {"full": np.float32(255), "mean_of_1": mean.reshape(shape) / 255, "std": _STD.reshape(shape)}
    source, result = ("cast", "planes") if last else ("planes", "ready")
    arithmetic = [
        make("Div", [source, "full"], ["unit"]),
        make("Sub", ["unit", "mean_of_1"], ["centred"]),
        make("Div", ["centred", "std"], ["normal" if last else result]),
    ]
    turn = make("Transpose", ["normal" if last else "cast"], ["ready" if last else "planes"], perm=[0, 3, 1, 2])
    cast = make("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT)
    front = [cast, *arithmetic, turn] if last else [cast, turn, *arithmetic]
    return _with_front(shipped, front, {**constants, **scaled})


def _with_front(shipped: ModelProto, front: Sequence[NodeProto], constants: dict[str, Any]) -> ModelProto:
    """The same network behind other nodes, which give `ready`; without any, `ready` is the input itself."""
    model = ModelProto()
    model.CopyFrom(shipped)
    graph = model.graph
    network = list(graph.node)[len(_SHIPPED) :]
    network[0].input[0] = "ready"
    if not front:
        batch, height, width, channels = graph.input[0].type.tensor_type.shape.dim
        shape: list[str | int | None] = [batch.dim_param, channels.dim_value, height.dim_value, width.dim_value]
        graph.input[0].CopyFrom(helper.make_tensor_value_info("ready", TensorProto.FLOAT, shape))
    used = {name for node in [*front, *network] for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used - set(constants)]
    given = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    _refill(graph.node, [*front, *network])
    _refill(graph.initializer, [*kept, *given])
    onnx.checker.check_model(model)
    return model


def _refill(repeated: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del repeated[:]
    repeated.extend(copies)


def _initial(model: ModelProto, name: str) -> Floats:
    found: Floats = numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))
    return found


def _session(model: ModelProto) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # the runtime would report its use to its maker
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure(ways: Sequence[Variant], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every round; within a round the order is drawn, so that none always follows the same other."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(_WARM_UP + rounds):
        for way in random.sample(ways, len(ways)):
            elapsed = way.milliseconds()
            if number >= _WARM_UP:
                found[way.name].append(elapsed)
    return found


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--rounds", default=400, show_default=True, help="Times that each variant runs.")
def main(models: Path, model: str, photo: Path, rounds: int) -> None:
    """Milliseconds a picture that normalisation adds to the network alone: medians of the differences in a round."""
    bundle = Repository(models).open(model)
    graph = onnx.load_from_string(bundle.read(bundle.manifest.model.file))
    if [node.op_type for node in graph.graph.node[: len(_SHIPPED)]] != _SHIPPED:
        sys.exit(f"{bundle.path}: the graph does not begin with {', '.join(_SHIPPED)}")
    ways = variants(graph, bundle.manifest.preprocessing(photo.read_bytes())[np.newaxis])
    difference = max(float(np.abs(way.logits() - ways[0].logits()).max()) for way in ways)
    if not difference <= _CLOSE:
        sys.exit(f"the variants do not compute the same: logits differ by {difference:.1e}")
    times = measure(ways, rounds)
    print(json.dumps({"photo": photo.name, "rounds": rounds, "logits_within": difference, **_summary(times)}))


def _summary(times: dict[str, list[float]]) -> dict[str, float]:
    extra = {
        f"{name}_extra_ms": statistics.median(one - base for one, base in zip(found, times["ready"], strict=True))
        for name, found in times.items()
        if name != "ready"
    }
    rounded = {name: round(value, 3) for name, value in extra.items()}
    return {"network_ms": round(statistics.median(times["ready"]), 2), **rounded}


if __name__ == "__main__":
    main()
