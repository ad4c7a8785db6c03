"""The first convolution on bytes: it reads the uint8 pixels directly, without a conversion to float.

In an int8 graph of MobileNetV2, subtracting the mean in float and convolving three channels of one byte took a third of
the time. So the mean moves into the bias, borders are padded with the mean's colour, and four pixels of a row become
one of twelve channels: integer kernels want channels in fours, and in NHWC that is no more than another shape.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
Constants = dict[str, npt.NDArray[Any]]

PIXELS = "stem_pixels"
"""The new convolution's input, float32 [N, C, h, w]; its values are whole numbers from 0 to 255."""

_WIDE = 4  # pixels in a block
_ELEMENTWISE = ("Relu", "Clip")  # quantization fuses them into a convolution only where they follow it directly


@dataclass(frozen=True)
class Stem:
    """What leads from the pixels to the first convolution's output, and from there on."""

    nodes: tuple[onnx.NodeProto, ...]
    activation: onnx.NodeProto | None
    mean: Floats  # [3], 0 to 255
    weight: Floats  # [O, 3, k, k]
    bias: Floats  # [O]
    stride: int
    pad: int
    side: int  # of the photo, in pixels

    @property
    def outputs(self) -> int:
        """Side of the convolution's output."""
        return int(self.side + 2 * self.pad - self.weight.shape[2]) // self.stride + 1


@dataclass(frozen=True)
class Blocks:
    """The same convolution over blocks of `width` pixels of a row; each of its steps gives `steps` outputs at once."""

    width: int
    steps: int
    before: int  # blocks of padding at the left
    after: int
    kernel: int  # in blocks

    @classmethod
    def of(cls, stem: Stem) -> "Blocks":
        """Blocks of one pixel where wider ones do not fit."""
        steps = _WIDE // stem.stride
        if _WIDE % stem.stride or stem.side % _WIDE or stem.outputs % steps:
            return cls(1, 1, stem.pad, stem.pad, stem.weight.shape[2])
        before = math.ceil(stem.pad / _WIDE)
        reach = stem.stride * (steps - 1) - stem.pad + stem.weight.shape[2]  # from a block's first pixel on
        kernel = before + math.ceil(reach / _WIDE)
        after = stem.outputs // steps + kernel - 1 - before - stem.side // _WIDE
        return cls(_WIDE, steps, before, max(after, 0), kernel)

    def weight(self, stem: Stem) -> Floats:
        """[O, 3, k, k] → [steps · O, width · 3, k, kernel]; taps that the plain kernel lacks are 0."""
        count, channels, side, _ = stem.weight.shape
        wide = np.zeros((self.steps, count, channels, side, self.kernel * self.width), np.float32)
        for step in range(self.steps):
            start = self.before * self.width - stem.pad + step * stem.stride
            wide[step, ..., start : start + side] = stem.weight
        split = wide.reshape(self.steps * count, channels, side, self.kernel, self.width)
        return np.ascontiguousarray(split.transpose(0, 4, 1, 2, 3)).reshape(len(split), -1, side, self.kernel)


def on_bytes(proto: onnx.ModelProto) -> bool:
    """Rewrite a graph in place so that its first convolution takes `PIXELS`; False, and no change, where it has none.

    The same function but for the padding, whose colour is rounded to bytes.
    """
    stem = _find(proto.graph)
    if stem is None:
        return False
    blocks = Blocks.of(stem)
    constants, nodes = _before(proto.graph.input[0].name, stem, blocks)
    nodes += _convolution(stem, blocks, constants)
    _replace(proto.graph, stem, nodes, constants)
    return True


def _before(pixels: str, stem: Stem, blocks: Blocks) -> tuple[Constants, list[onnx.NodeProto]]:
    """From `pixels` uint8 [N, side, side, 3] to `PIXELS`."""
    constants: Constants = {}
    nodes = []
    width, channels = stem.side // blocks.width, 3 * blocks.width
    if blocks.width > 1:
        constants["stem_blocks"] = np.array([-1, stem.side, width, channels], np.int64)
        nodes.append(helper.make_node("Reshape", [pixels, "stem_blocks"], ["stem_rows"]))
    colour = np.tile(np.rint(stem.mean).astype(np.uint8), blocks.width)
    below = max((stem.outputs - 1) * stem.stride + stem.weight.shape[2] - stem.pad - stem.side, 0)
    tall = stem.pad + stem.side + below
    inside = "stem_rows" if nodes else pixels
    for axis, strips, shape in (
        (1, (stem.pad, below), (0, width, channels)),
        (2, (blocks.before, blocks.after), (tall, 0, channels)),
    ):
        padding, inside = _strips(inside, axis, strips, shape, colour, constants)
        nodes += padding
    return constants, [
        *nodes,
        helper.make_node("Transpose", [inside], ["stem_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem_planes"], [PIXELS], to=TensorProto.FLOAT),
    ]


def _strips(
    inside: str,
    axis: int,
    thick: tuple[int, int],
    shape: tuple[int, ...],
    colour: npt.NDArray[np.uint8],
    constants: Constants,
) -> tuple[list[onnx.NodeProto], str]:
    """Strips of one colour on both sides of an axis: ONNX's own Pad has one value for all channels."""
    if not any(thick):
        return [], inside
    name = f"stem_axis{axis}"
    nodes = [helper.make_node("Shape", [inside], [f"{name}_batch"], start=0, end=1)]
    parts = [inside]
    for place, count in zip(("before", "after"), thick, strict=True):
        if count:
            strip = f"{name}_{place}"
            full = [*shape[: axis - 1], count, *shape[axis:]]
            constants[f"{strip}_shape"] = np.array(full, np.int64)
            constants[f"{strip}_colour"] = np.broadcast_to(colour, (1, *full)).copy()
            nodes += [
                helper.make_node("Concat", [f"{name}_batch", f"{strip}_shape"], [f"{strip}_all"], axis=0),
                helper.make_node("Expand", [f"{strip}_colour", f"{strip}_all"], [strip]),
            ]
            parts.insert(0 if place == "before" else len(parts), strip)
    nodes.append(helper.make_node("Concat", parts, [f"{name}_padded"], axis=axis))
    return nodes, f"{name}_padded"


def _convolution(stem: Stem, blocks: Blocks, constants: Constants) -> list[onnx.NodeProto]:
    """The convolution, what follows it directly, and the outputs of a block side by side again."""
    shift = np.einsum("ochw,c->o", stem.weight, stem.mean, dtype=np.float64)
    constants["stem_weight"] = blocks.weight(stem)
    constants["stem_bias"] = np.tile((stem.bias - shift).astype(np.float32), blocks.steps)
    strides = [stem.stride, 1 if blocks.width > 1 else stem.stride]
    convolution = helper.make_node("Conv", [PIXELS, "stem_weight", "stem_bias"], ["stem_output"], strides=strides)
    nodes, last = [convolution], stem.nodes[-1]
    if stem.activation is not None:
        last = onnx.NodeProto.FromString(stem.activation.SerializeToString())
        last.input[0] = "stem_output"
        nodes.append(last)
    if blocks.steps == 1:
        nodes[-1].output[0] = last.output[0]
        return nodes
    end = last.output[0]
    nodes[-1].output[0] = "stem_together"
    constants["stem_apart"] = np.array([-1, stem.outputs, stem.outputs, len(stem.bias)], np.int64)
    return [
        *nodes,
        helper.make_node("Transpose", ["stem_together"], ["stem_channels_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["stem_channels_last", "stem_apart"], ["stem_alone"]),
        helper.make_node("Transpose", ["stem_alone"], [end], perm=[0, 3, 1, 2]),
    ]


def _find(graph: onnx.GraphProto) -> Stem | None:
    """Cast, Transpose, Sub and Conv in a row, as the export writes them."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: list[onnx.NodeProto] = []
    tensor = graph.input[0].name
    for operation in ("Cast", "Transpose", "Sub", "Conv"):
        user = _only_user(graph, tensor)
        if user is None or user.op_type != operation:
            return None
        found.append(user)
        tensor = user.output[0]
    subtraction, convolution = found[2:]
    weight = constants[convolution.input[1]]
    bias = constants[convolution.input[2]] if len(convolution.input) > 2 else np.zeros(len(weight), np.float32)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in convolution.attribute}
    strides, pads = set(attributes.get("strides", [1])), set(attributes.get("pads", [0]))
    shape = graph.input[0].type.tensor_type.shape.dim
    square = weight.shape[2] == weight.shape[3] and shape[1].dim_value == shape[2].dim_value
    plain = attributes.get("group", 1) == 1 and set(attributes.get("dilations", [1])) == {1}
    if not (plain and square and len(strides) == len(pads) == 1):
        return None
    after = _only_user(graph, tensor)
    return Stem(
        tuple(found),
        after if after is not None and after.op_type in _ELEMENTWISE else None,
        constants[subtraction.input[1]].reshape(-1),
        weight,
        bias,
        strides.pop(),
        pads.pop(),
        shape[1].dim_value,
    )


def _only_user(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    users = [node for node in graph.node if tensor in node.input]
    return users[0] if len(users) == 1 else None


def _replace(graph: onnx.GraphProto, stem: Stem, nodes: list[onnx.NodeProto], constants: Constants) -> None:
    """The new nodes come first: they need nothing but the pixels."""
    gone = {name for node in (*stem.nodes, *filter(None, [stem.activation])) for name in node.output}
    kept = [node for node in graph.node if not gone.intersection(node.output)]
    for position, node in enumerate(nodes):
        node.name = f"stem_{position}"
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    used = {name for node in graph.node for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend([*tensors, *(numpy_helper.from_array(value, name) for name, value in constants.items())])
