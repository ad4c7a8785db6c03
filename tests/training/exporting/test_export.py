import numpy as np
import onnx
import pytest
import torch

from bundle import onnx_file
from training.config import Recipe
from training.evaluation.calibrate import softmax
from training.exporting import export
from training.inference import onnx_runtime
from training.inference.batches import torch_infer
from training.networks import weights

CROP = 64


@pytest.fixture(scope="module")
def model(backbone_file):
    return weights.build(Recipe(), 3, str(backbone_file)).eval()


@pytest.fixture(scope="module")
def graph(model):
    return export.to_onnx(model, 1.7, CROP)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, CROP, CROP, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def answers(graph, pixels):
    return dict(
        zip(export.OUTPUTS, onnx_runtime.session(graph.data).run(export.OUTPUTS, {"pixels": pixels}), strict=True)
    )


def test_inputs_and_outputs_are_those_of_the_design(graph):
    proto = onnx.load_from_string(graph.data)

    def shape(value):
        return [part.dim_param or part.dim_value for part in value.type.tensor_type.shape.dim]

    assert [(value.name, shape(value)) for value in proto.graph.input] == [("pixels", ["batch", CROP, CROP, 3])]
    assert [(value.name, shape(value)) for value in proto.graph.output] == [
        ("probabilities", ["batch", 3]),
        ("logits", ["batch", 3]),
        ("evidence", ["batch", 3, 2, 2]),
    ]
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (graph.opset, graph.ir_version) == (export.OPSET, proto.ir_version)


def test_logits_are_those_of_the_unfused_model(model, answers, pixels):
    expected = torch_infer(model, model)(pixels)
    assert np.abs(answers["logits"] - expected).max() < 1e-4 * np.abs(expected).max()


def test_probabilities_are_calibrated_in_the_graph(answers):
    assert answers["probabilities"] == pytest.approx(softmax(answers["logits"], 1.7), abs=1e-6)


def test_the_mean_of_the_evidence_plus_the_bias_is_the_logit(model, answers):
    found = answers["evidence"].mean((2, 3)) + model.head.bias.detach().numpy()
    assert found == pytest.approx(answers["logits"], abs=1e-5)


def test_each_row_of_a_batch_is_the_photo_alone(graph, answers, pixels):
    running = onnx_runtime.session(graph.data)
    for index in range(len(pixels)):
        alone = running.run(export.OUTPUTS, {"pixels": pixels[index : index + 1]})
        for name, found in zip(export.OUTPUTS, alone, strict=True):
            assert np.array_equal(found[0], answers[name][index]), name


def test_black_borders_are_padded_as_in_training(model, graph):
    """The mean is subtracted before the convolution pads: folding it into the bias would be wrong at the border."""
    black = np.zeros((1, CROP, CROP, 3), np.uint8)
    found, expected = onnx_runtime.infer(graph.data, "logits")(black), torch_infer(model, model)(black)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_the_file_is_whole_small_and_silent_about_this_machine(graph):
    assert not onnx_file.has_external_data(graph.data)
    described = onnx.load_from_string(graph.data)
    for tensor in described.graph.initializer:
        tensor.ClearField("raw_data")  # megabytes of weights hold any three bytes, depending on the processor
    assert b".py" not in described.SerializeToString()
    assert b"stack_trace" not in described.SerializeToString()
    assert "BatchNormalization" not in {node.op_type for node in described.graph.node}


def test_exporting_again_gives_the_same_bytes_and_leaves_the_model_as_it_was(model, graph):
    before = weights.digest(model)
    assert export.to_onnx(model, 1.7, CROP).data == graph.data
    assert weights.digest(model) == before
    assert not any(part.training for part in model.modules())


def test_parameters_are_counted_before_folding(model, graph):
    assert graph.parameters == sum(part.numel() for part in model.parameters())


# Half precision


@pytest.fixture(scope="module")
def half(model):
    return export.to_onnx(model, 1.7, CROP, "fp16")


def test_half_precision_changes_neither_inputs_nor_outputs(graph, half):
    single, proto = onnx.load_from_string(graph.data).graph, onnx.load_from_string(half.data).graph
    assert (list(proto.input), list(proto.output)) == (list(single.input), list(single.output))
    assert (half.precision, graph.precision) == ("fp16", "fp32")
    assert half.parameters == graph.parameters


def test_half_precision_halves_the_file(graph, half):
    assert len(half.data) < 0.55 * len(graph.data)


def test_all_convolutions_and_nothing_around_them_compute_in_half_precision(half):
    """The subtraction of the mean, and everything from the evidence on, stay in float32."""
    proto = onnx.shape_inference.infer_shapes(onnx.load_from_string(half.data))
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*proto.graph.value_info, *proto.graph.output)}
    by_operation = {}
    for node in proto.graph.node:
        by_operation.setdefault(node.op_type, set()).add(kinds[node.output[0]])
    single, half_precision = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    assert by_operation["Conv"] == {half_precision}
    assert by_operation["Sub"] == by_operation["ReduceMean"] == by_operation["Softmax"] == {single}


def test_half_precision_answers_nearly_alike_on_the_cpu(half, answers, pixels):
    found = dict(
        zip(export.OUTPUTS, onnx_runtime.session(half.data).run(export.OUTPUTS, {"pixels": pixels}), strict=True)
    )
    assert {name: output.dtype for name, output in found.items()} == dict.fromkeys(export.OUTPUTS, np.float32)
    difference = np.abs(found["logits"] - answers["logits"]).max()
    assert 0 < difference < 0.05 * np.abs(answers["logits"]).max()
    assert found["probabilities"] == pytest.approx(softmax(found["logits"], 1.7), abs=1e-6)


def test_a_model_exported_in_half_precision_stays_as_it_was(model, half):
    assert {part.dtype for part in model.parameters()} == {torch.float32}


# Other backbones; each is exported and served in test_backbones_end_to_end


@pytest.mark.parametrize(
    ("backbone", "crop", "precision"),
    [("alexnet", 63, "fp32"), ("small_cnn", 37, "fp32"), ("mlp", 50, "fp32"), ("mlp", 32, "fp16")],
)
def test_borders_and_odd_sizes_are_those_of_training(backbone, crop, precision):
    model = weights.build(Recipe(backbone=backbone), 3, "none").eval()
    graph = export.to_onnx(model, 1.0, crop, precision)
    extremes = np.array([0, 255], np.uint8)[:, None, None, None]
    pixels = np.broadcast_to(extremes, (2, crop, crop, 3)).copy()
    expected = torch_infer(model, model)(pixels)
    limit = {"fp32": 1e-5, "fp16": 5e-3}[precision] * np.abs(expected).max()
    assert np.abs(onnx_runtime.infer(graph.data, "logits")(pixels) - expected).max() < limit
