"""The first convolution on bytes is the same function, whatever its kernel, stride and padding are."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.exporting import stem
from training.inference import onnx_runtime

MEAN = (123.675, 116.28, 103.53)


def graph(side, kernel, stride, pad, *, mean=(124, 116, 104), after="Relu", bias=True, group=1):
    """Cast, Transpose, Sub, Conv as the export writes them, then `after` and a mean."""
    generator = np.random.default_rng(0)
    constants = {
        "mean": np.array(mean, np.float32).reshape(1, 3, 1, 1),
        "weight": (generator.normal(0, 0.01, (6, 3 // group, kernel, kernel))).astype(np.float32),
        "bias": generator.normal(0, 1, 6).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    attributes = {"strides": [stride] * 2, "pads": [pad] * 4, "group": group, "dilations": [1, 1]}
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "mean"], ["centred"]),
        helper.make_node("Conv", ["centred", "weight", *(["bias"] if bias else [])], ["map"], **attributes),
        *([helper.make_node(after, ["map"], ["active"])] if after else []),
        helper.make_node("ReduceMean", ["active" if after else "map", "axes"], ["logits"], keepdims=0),
        helper.make_node("Identity", ["active" if after else "map"], ["evidence"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", side, side, 3])]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6]),
        helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["batch", 6, "h", "w"]),
    ]
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    body = helper.make_graph(nodes, "stem", inputs, outputs, tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def evidence(proto, pixels):
    return onnx_runtime.session(proto.SerializeToString()).run(["evidence"], {"pixels": pixels})[0]


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pad"),
    [
        (32, 3, 2, 1),  # MobileNet, EfficientNet
        (32, 7, 2, 3),  # ResNet
        (32, 3, 1, 1),  # VGG
        (64, 11, 4, 2),  # AlexNet
        (32, 4, 4, 0),  # ConvNeXt
        (32, 5, 1, 0),
        (30, 3, 2, 1),  # no fours in a row
        (32, 3, 3, 1),  # a step that does not fit into four
    ],
)
@pytest.mark.parametrize("after", ["Relu", None])
def test_the_map_is_that_of_the_plain_convolution(side, kernel, stride, pad, after):
    """Here the mean is of whole numbers, as the colour of the padding is."""
    plain, rewritten = graph(side, kernel, stride, pad, after=after), graph(side, kernel, stride, pad, after=after)
    assert stem.on_bytes(rewritten)
    onnx.checker.check_model(rewritten, full_check=True)
    assert "Sub" not in {node.op_type for node in rewritten.graph.node}
    pixels = np.random.default_rng(1).integers(0, 256, (3, side, side, 3), np.uint8)
    expected, found = evidence(plain, pixels), evidence(rewritten, pixels)
    assert found.shape == expected.shape
    assert expected.std() > 1
    assert np.abs(found - expected).max() < 1e-3


def test_a_mean_between_two_bytes_is_rounded_in_the_padding_alone():
    plain, rewritten = graph(32, 3, 2, 1, mean=MEAN), graph(32, 3, 2, 1, mean=MEAN)
    stem.on_bytes(rewritten)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    difference = np.abs(evidence(plain, pixels) - evidence(rewritten, pixels))
    assert difference[:, :, 1:, 1:].max() < 1e-3
    assert 1e-3 < difference.max() < 0.2  # half a level at most, under weights of about 0.01


def test_a_convolution_without_a_bias_gets_one():
    plain, rewritten = graph(32, 3, 2, 1, bias=False), graph(32, 3, 2, 1, bias=False)
    assert stem.on_bytes(rewritten)
    grey = np.full((1, 32, 32, 3), 90, np.uint8)
    assert evidence(rewritten, grey) == pytest.approx(evidence(plain, grey), abs=0.1)


def test_fours_of_pixels_become_channels_where_they_fit():
    rewritten = graph(32, 3, 2, 1)
    stem.on_bytes(rewritten)
    shapes = {tensor.name: list(tensor.dims) for tensor in rewritten.graph.initializer}
    assert shapes["stem_weight"] == [12, 12, 3, 2]


@pytest.mark.parametrize("broken", ["group", "other reader", "no convolution"])
def test_what_does_not_begin_so_is_left_as_it_is(broken):
    proto = graph(32, 3, 2, 1, group=3 if broken == "group" else 1)
    if broken == "other reader":
        proto.graph.node.append(helper.make_node("Identity", ["centred"], ["unused"]))
    if broken == "no convolution":
        proto.graph.node[3].op_type = "ConvTranspose"
    before = proto.SerializeToString()
    assert not stem.on_bytes(proto)
    assert proto.SerializeToString() == before
