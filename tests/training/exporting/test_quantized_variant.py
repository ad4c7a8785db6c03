"""An int8 model is kept or left out by validation, measured on the test split, and put into the bundle."""

import dataclasses

import numpy as np
import pytest

from bundle import golden
from bundle.errors import BundleCorrupt, GoldenMismatch
from bundle.repository import Repository, open_bundle
from training import pipeline
from training.config import Machine
from training.dataset.data import Photo
from training.exporting import quantized_variant, verify
from training.exporting.export import Graph
from training.inference import onnx_runtime
from training.progress import Silent

CPU = "CPUExecutionProvider"


class Listening(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def of(*answers, classes=2):
    """Probabilities [N, C] whose top-1 are these."""
    return np.eye(classes, dtype=np.float32)[list(answers)] * 0.8 + 0.1


def test_a_published_version_holds_both_precisions_and_each_replays(finished):
    bundle = Repository(finished.models).open("colours")
    manifest, golden_pictures = bundle.manifest, golden.load(bundle)
    assert sorted(manifest.files) == ["golden.npz", "model.int8.onnx", "model.onnx", "report.html"]
    for precision in ("fp32", "int8"):
        infer = onnx_runtime.infer(bundle.read(manifest.file_of(precision)), "logits")
        tolerance = manifest.tolerances[CPU][precision]
        assert golden.replay(golden_pictures.of(precision), manifest.preprocessing, infer, tolerance) < tolerance / 10
    assert "int8" not in manifest.tolerances["CUDAExecutionProvider"]


def test_one_precision_does_not_pass_for_the_other(finished):
    bundle = Repository(finished.models).open("colours")
    infer = onnx_runtime.infer(bundle.read("model.onnx"), "logits")
    golden_pictures, tolerance = golden.load(bundle), bundle.manifest.tolerances[CPU]["int8"]
    with pytest.raises(GoldenMismatch, match="has a logit off by"):
        golden.replay(golden_pictures.of("int8"), bundle.manifest.preprocessing, infer, tolerance)


def test_the_manifest_tells_what_int8_is_worth(finished):
    bundle = Repository(finished.models).open("colours")
    (variant,) = bundle.manifest.variants
    assert (variant.precision, variant.file, variant.largest_loss) == ("int8", "model.int8.onnx", 0.005)
    assert variant.bytes == (bundle.path / variant.file).stat().st_size < (bundle.path / "model.onnx").stat().st_size
    context = pipeline.context_of(finished.run, Machine("cpu", 1))
    answers = quantized_variant._answers(
        onnx_runtime.infer(bundle.read(variant.file), "probabilities"), "test", context, Silent()
    )
    targets = context.targets("test").numpy()
    assert variant.metrics.n == bundle.manifest.metrics.n == len(targets)
    assert variant.metrics.top1 == (answers.argmax(1) == targets).mean()
    assert variant.speedup > 0


def test_a_changed_byte_of_the_int8_model_is_found(finished, tmp_path):
    folder = tmp_path / "bundle"
    pipeline.bundling.copy(Repository(finished.models).open("colours"), folder)
    data = bytearray((folder / "model.int8.onnx").read_bytes())
    data[100] ^= 1
    (folder / "model.int8.onnx").write_bytes(data)
    with pytest.raises(BundleCorrupt, match=r"model\.int8\.onnx: SHA-256"):
        open_bundle(folder)


def test_golden_pictures_without_logits_for_a_variant_are_refused(finished, tmp_path):
    bundle = Repository(finished.models).open("colours")
    alone = dataclasses.replace(golden.load(bundle), variants={})

    class Without(type(bundle)):
        def read(self, file):
            return alone.to_bytes() if file == "golden.npz" else super().read(file)

    with pytest.raises(BundleCorrupt, match="no logits in int8; expected some for each precision in the manifest"):
        golden.load(Without(bundle.path, bundle.version, bundle.manifest, bundle.manifest_sha256))


@pytest.fixture(scope="module")
def primary(finished):
    bundle = Repository(finished.models).open("colours")
    return Graph(bundle.read("model.onnx"), "fp32", 20, 10, 1), golden.load(bundle)


def made(primary, finished, monkeypatch, quantized, fine_tune=None):
    """What `to_int8` gives, and says, with `quantized` for the library's work."""
    monkeypatch.setattr(quantized_variant.quantize, "to_int8", quantized)
    graph, golden_pictures = primary
    context, listening = pipeline.context_of(finished.run, Machine("cpu", 1)), Listening()
    probabilities = np.full((len(context.photos("test")), 3), 1 / 3, np.float32)
    fine_tune = fine_tune or (lambda: graph)
    return quantized_variant.to_int8(
        graph, golden_pictures, probabilities, context, listening, fine_tune
    ), listening.said


def test_a_model_that_loses_too_much_on_validation_is_left_out_with_the_figures(primary, finished, monkeypatch):
    """A loss that the few photos here cannot show: the limit is put where even equal answers are over it."""
    monkeypatch.setattr(
        quantized_variant, "over_the_limit", lambda expected, found, targets: len(expected) == len(targets)
    )
    quantized, said = made(primary, finished, monkeypatch, lambda graph, pixels: graph)
    assert quantized is None
    assert said[-2].endswith("and 0.5% may be lost; training its weights for eight bits")
    assert "no int8 model: its top-1 on" in said[-1]
    assert said[-1].endswith("and 0.5% may be lost; the bundle holds fp32 alone")


def test_weights_trained_for_eight_bits_get_a_second_chance(primary, finished, monkeypatch):
    graph, _ = primary
    fine_tuned = dataclasses.replace(graph, parameters=2)
    refusals = iter(["its top-1 is low", ""])
    monkeypatch.setattr(quantized_variant, "_judge", lambda *arguments: next(refusals))
    given = []
    quantized, said = made(
        primary, finished, monkeypatch, lambda data, pixels: given.append(data) or graph.data, lambda: fine_tuned
    )
    assert quantized is not None
    assert given == [graph.data, fine_tuned.data]
    assert "int8: its top-1 is low; training its weights for eight bits" in said


def test_a_network_that_cannot_be_quantized_is_no_reason_to_lose_the_run(primary, finished, monkeypatch):
    def fails(graph, pixels):
        raise quantized_variant.QuantizationFailed("an operator that nobody knows")

    quantized, said = made(primary, finished, monkeypatch, fails)
    assert quantized is None
    assert "no int8 model: the network cannot be made int8 (an operator that nobody knows)" in said[-1]


def test_a_single_photo_proves_no_loss_and_half_a_point_of_many_does():
    targets = np.zeros(400, np.int64)
    right = of(*[0] * 400)
    assert not quantized_variant.over_the_limit(right, of(*[1] * 2, *[0] * 398), targets)
    assert quantized_variant.over_the_limit(right, of(*[1] * 3, *[0] * 397), targets)
    assert not quantized_variant.over_the_limit(right[:10], of(1, *[0] * 9), targets[:10])
    assert quantized_variant.over_the_limit(right[:10], of(1, 1, *[0] * 8), targets[:10])


def test_what_one_loses_another_may_win_back():
    targets = np.array([0, 0, 0, 1, 1, 1])
    assert not quantized_variant.over_the_limit(of(0, 0, 0, 0, 0, 0), of(1, 1, 1, 1, 1, 1), targets)


def test_metrics_count_agreement_with_the_primary_model_right_or_wrong():
    found = quantized_variant.metrics(of(0, 1, 1, 0), of(0, 1, 0, 0), np.array([0, 0, 1, 1]))
    assert (found.n, found.top1, found.agreement) == (4, 0.5, 0.75)
    assert found.top1_interval[0] < 0.5 < found.top1_interval[1]


def test_photos_for_calibration_are_of_all_classes_and_always_the_same():
    photos = [Photo(f"{label}/{number}", label, f"{number:02}{label}") for label in "ab" for number in range(9)]
    photos.append(Photo("c/0", "c", "00c"))
    chosen = quantized_variant.stratified(photos, 7)
    assert [photo.digest for photo in chosen] == ["00a", "00b", "00c", "01a", "01b", "02a", "02b"]
    assert quantized_variant.stratified(photos[::-1], 7) == chosen
    assert len(quantized_variant.stratified(photos, 100)) == 19


def test_the_tolerance_is_a_part_of_what_rounding_cost_and_never_nothing():
    expected = np.array([[1.0, 2.0]], np.float32)
    assert verify.int8_tolerance(expected, expected + np.array([[0.0, 0.7]], np.float32)) == 0.07
    assert verify.int8_tolerance(expected, expected) == 0.01
