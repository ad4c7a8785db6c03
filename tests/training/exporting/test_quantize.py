"""The int8 graph computes in integers, answers nearly alike, and is the same every time."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bundle import golden, onnx_file
from bundle.repository import Repository
from training.config import Recipe
from training.errors import QuantizationFailed
from training.evaluation.calibrate import softmax
from training.exporting import export, quantize, stem
from training.inference import onnx_runtime
from training.networks import weights

CROP = 64


@pytest.fixture(scope="module")
def graph(backbone_file):
    torch.manual_seed(0)
    return export.to_onnx(weights.build(Recipe(), 3, str(backbone_file)).eval(), 1.7, CROP).data


@pytest.fixture(scope="module")
def batches():
    """Pictures of one colour and grain, as the backbone's norms know them."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (6, 4, 1, 1, 3))
    return np.clip(colours + random.integers(-40, 41, (6, 4, CROP, CROP, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def quantized(graph, batches):
    return quantize.to_int8(graph, batches)


def optimized(model, folder):
    """What ONNX Runtime makes of the graph before it runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def test_every_convolution_but_the_last_runs_in_integers(graph, quantized, tmp_path):
    """No float stands between them: activations are fused, sums are of integers, pixels arrive as bytes."""
    convolutions = Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)["Conv"]
    found = optimized(quantized, tmp_path)
    assert found["QLinearConv"] == convolutions - 1
    assert found["QLinearAdd"] == 10, "MobileNetV2's residual sums"
    assert (found["Clip"], found["Sub"], found["QuantizeLinear"]) == (0, 0, 0)
    assert found["DequantizeLinear"] == 1, "before the head"


def test_a_trained_network_answers_nearly_as_in_floats():
    """The embedded flowers on their golden pictures; noise grows with every layer of a network of random weights."""
    bundle = Repository(Path(__file__).parents[3] / "models").open("flowers")
    pixels, model = golden.load(bundle).pixels, bundle.read(bundle.manifest.model.file)
    quantized = quantize.to_int8(model, np.split(pixels, 4))
    plain, integer = (
        onnx_runtime.session(graph).run(export.OUTPUTS, {"pixels": pixels}) for graph in (model, quantized)
    )
    assert [output.shape for output in integer] == [output.shape for output in plain]
    assert np.abs(integer[1] - plain[1]).mean() < 0.3
    assert (integer[1].argmax(1) == plain[1].argmax(1)).mean() > 0.8
    assert integer[0] == pytest.approx(softmax(integer[1], bundle.manifest.calibration.temperature), abs=1e-6)


def test_evidence_and_logits_fit_together_as_in_the_float_graph(graph, quantized, batches):
    biases = []
    for model in (graph, quantized):
        logits, evidence = onnx_runtime.session(model).run(["logits", "evidence"], {"pixels": batches[1]})
        biases.append(logits - evidence.mean((2, 3)))
    assert biases[1] == pytest.approx(biases[0], abs=1e-5)


def test_each_row_of_a_batch_is_the_photo_alone(quantized, batches):
    infer = onnx_runtime.infer(quantized, "logits")
    together = infer(batches[2])
    alone = np.concatenate([infer(photo[np.newaxis]) for photo in batches[2]])
    assert together == pytest.approx(alone, abs=1e-5)


def test_the_file_is_whole_small_and_the_same_every_time(graph, quantized, batches):
    assert not onnx_file.has_external_data(quantized)
    assert len(quantized) < 0.4 * len(graph)
    assert quantize.to_int8(graph, batches) == quantized
    assert not onnx.load_from_string(quantized).metadata_props


def test_a_graph_without_a_convolution_on_the_pixels_keeps_its_subtraction(graph, batches, tmp_path):
    proto = onnx.load_from_string(graph)
    proto.graph.node.append(onnx.helper.make_node("Identity", ["pixels"], ["unused"]))
    assert not stem.on_bytes(onnx.load_from_string(proto.SerializeToString()))
    found = optimized(quantize.to_int8(proto.SerializeToString(), batches[:2]), tmp_path)
    assert found["Sub"] == 1
    assert found["QLinearConv"] == 52


def test_what_the_library_cannot_quantize_is_said_in_words(graph):
    """Here for want of a single photo."""
    with pytest.raises(QuantizationFailed, match=r"cannot be made int8 \(.+\); export with --no-int8"):
        quantize.to_int8(graph, [])
