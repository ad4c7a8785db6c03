"""What rounding shifts on average is taken back by the biases, measured against the numbers that ORT rounds to."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle import golden
from bundle.repository import Repository
from training.exporting import bias_correction, quantize
from training.inference import onnx_runtime

DEPTHWISE, MIXING = (3, 1, 3, 3), (5, 3, 3, 3)


@pytest.fixture(scope="module")
def flowers():
    """The embedded model's graph and its golden pictures, uint8 [N, H, W, 3]."""
    bundle = Repository(Path(__file__).parents[3] / "models").open("flowers")
    return bundle.read(bundle.manifest.model.file), golden.load(bundle).pixels


@pytest.fixture(scope="module")
def int8_flowers(flowers):
    """The same graph in int8, with corrected biases."""
    data, pixels = flowers
    return quantize.to_int8(data, [pixels])


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 256, (3, 4, 12, 12, 3)).astype(np.uint8)


def graph(bias=True, **rounded_weights):
    """Two convolutions on pixels, the first one depthwise, both with strides and padding."""
    random = np.random.default_rng(0)
    constants = {
        "first": random.normal(size=DEPTHWISE).astype(np.float32),
        "second": random.normal(size=MIXING).astype(np.float32),
        "bias": random.normal(size=5).astype(np.float32),
    }
    constants |= rounded_weights
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Conv", ["planes", "first"], ["middle"], name="one", group=3, pads=[1, 1, 1, 1], strides=[2, 1]
        ),
        helper.make_node("Conv", ["middle", "second", *["bias"] * bias], ["end"], name="two", pads=[0, 1, 1, 0]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 12, 12, 3])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("middle", "end")]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if bias or name != "bias"]
    made = helper.make_graph(nodes, "two", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def constants(proto):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def means(proto, pixels):
    """Of each channel of both outputs."""
    found = onnx_runtime.session(proto.SerializeToString()).run(
        ["middle", "end"], {"pixels": pixels.reshape(-1, 12, 12, 3)}
    )
    return [output.mean((0, 2, 3)) for output in found]


@pytest.mark.parametrize("bias", [True, False])
def test_with_rounded_weights_every_channel_keeps_its_mean(pixels, bias):
    plain, corrected = graph(bias), graph(bias)
    bias_correction.correct(corrected, list(pixels))
    for tensor in corrected.graph.initializer:
        if tensor.name == "first":
            tensor.CopyFrom(rounded(tensor))
    assert np.abs(constants(corrected)["first"] - constants(plain)["first"]).max() > 1e-3
    assert means(corrected, pixels)[0] == pytest.approx(means(plain, pixels)[0], rel=1e-5, abs=1e-3)

    second = graph(bias)
    biases = {node.name: node.input[2] for node in corrected.graph.node if node.op_type == "Conv"}
    given = constants(plain).get("bias", np.zeros(5, np.float32))
    shift = constants(corrected)[biases["two"]] - given
    for tensor in second.graph.initializer:
        if tensor.name == "second":
            tensor.CopyFrom(rounded(tensor))
    assert means(second, pixels)[1] + shift == pytest.approx(means(plain, pixels)[1], rel=1e-5, abs=1e-2)


def rounded(tensor):
    weight = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(weight + bias_correction.rounding_error(weight), tensor.name)


def test_what_stays_in_floats_keeps_its_bias(pixels):
    proto = graph()
    bias_correction.correct(proto, list(pixels), ["two"])
    assert np.array_equal(constants(proto)["bias"], constants(graph())["bias"])
    assert len(proto.graph.node[2].input) == 3


def test_the_error_is_that_of_the_quantizer(flowers, int8_flowers):
    """Each convolution's int8 weights, times their scales, against the floats that they were made from."""
    weights = constants(onnx.load_from_string(flowers[0]))
    made = onnx.load_from_string(int8_flowers)
    values = constants(made)
    compared = 0
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(".weight_quantized"):
            weight = weights[node.input[0].removesuffix("_quantized")]
            scale = values[node.input[1]].reshape(-1, *[1] * (weight.ndim - 1))
            error, expected = values[node.input[0]] * scale - weight, bias_correction.rounding_error(weight)
            np.testing.assert_allclose(error, expected, rtol=0, atol=1e-5 * float(np.abs(weight).max()))
            compared += 1
    assert compared > 40


def test_a_trained_network_answers_nearer_to_fp32_than_without(flowers, int8_flowers, monkeypatch):
    data, pixels = flowers
    expected = onnx_runtime.infer(data, "logits")(pixels)

    def off(quantized):
        return np.abs(onnx_runtime.infer(quantized, "logits")(pixels) - expected).mean()

    monkeypatch.setattr(bias_correction, "correct", lambda *_: None)
    assert off(int8_flowers) < 0.8 * off(quantize.to_int8(data, [pixels]))


def test_few_photos_tell_the_means():
    batches = [np.zeros((size, 1, 1, 3), np.uint8) for size in (30, 30, 30, 30)]
    assert len(bias_correction._first(batches)) == 3
