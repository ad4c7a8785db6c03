import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from bundle import golden
from bundle.errors import BundleCorrupt
from bundle.repository import Repository, open_bundle, sha256_of
from training import pipeline, provenance
from training.config import Machine
from training.errors import (
    LabelConflict,
    NothingToEvaluate,
    OutputTaken,
    RecipeInvalid,
    RunUnusable,
    UnknownLabels,
    VerificationFailed,
    WeightsUnusable,
)
from training.evaluation.metrics import wilson
from training.exporting import bundling, export
from training.exporting.bundling import ExportOptions
from training.exporting.export import Graph
from training.inference import onnx_runtime
from training.progress import Silent
from training.runs.records import TrainingRequest
from training.runs.run import Run

MACHINE = Machine("cpu", 2)


class Listening(Silent):
    def __init__(self):
        self.said, self.tracked = [], []

    def say(self, text):
        self.said.append(text)

    def track(self, items, what, total):
        self.tracked.append(what)
        return iter(items)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    shutil.copytree(finished.run.path, tmp_path / "runs" / "colours" / "copy")
    return Run(tmp_path / "runs" / "colours" / "copy")


def test_a_published_version_opens_and_replays(finished):
    """From drawn photos to a bundle that any runtime can check."""
    bundle = Repository(finished.models).open("colours")
    manifest = bundle.manifest
    assert (bundle.version, manifest.labels) == (1, ("blue", "green", "red"))
    infer = onnx_runtime.infer(bundle.read(manifest.model.file), "logits")
    tolerance = manifest.tolerances["CPUExecutionProvider"]["fp32"]
    assert golden.replay(golden.load(bundle), manifest.preprocessing, infer, tolerance) < tolerance / 10


def test_a_bundle_in_half_precision_declares_it_and_replays_within_what_was_measured(finished, copied, tmp_path):
    folder = pipeline.export(copied, tmp_path / "half", MACHINE, Silent(), ExportOptions("fp16"))
    bundle = pipeline.publish(folder, tmp_path / "models")
    manifest, single = bundle.manifest, finished.bundle.manifest
    assert manifest.model == dataclasses.replace(single.model, precision="fp16")
    assert manifest.provenance == single.provenance
    tolerance = manifest.tolerances["CPUExecutionProvider"]["fp16"]
    assert manifest.tolerances["CUDAExecutionProvider"] == {"fp16": tolerance}
    infer = onnx_runtime.infer(bundle.read(manifest.model.file), "logits")
    difference = golden.replay(golden.load(bundle), manifest.preprocessing, infer, tolerance)
    assert 1e-5 < difference < tolerance / 3


def test_the_run_holds_every_record(finished):
    files = {path.name for path in finished.run.path.iterdir()}
    expected = ["recipe", "source", "check", "split", "curves", "calibration", "evaluation", "verification", "seconds"]
    assert {f"{name}.json" for name in expected if name != "curves"} <= files
    assert {"curves.jsonl", "head.jsonl", "model.pt", "report.html", "bundle"} <= files
    assert set(finished.run.seconds()) == {"check", "split", "train", "calibrate", "evaluate", "export"}


def test_the_provenance_is_true(finished, photos, recipe, backbone_file):
    found = finished.bundle.manifest.provenance
    assert found.weights == sha256_of(backbone_file)
    assert found.data_fingerprint == finished.run.split().fingerprint
    assert sum(found.photos.values()) == 48
    assert found.recipe == recipe().record()
    assert found.versions["torch"] == torch.__version__.split("+")[0] or found.versions["torch"] == torch.__version__
    assert found.versions["codec:libjpeg_turbo"]
    assert str(photos) not in finished.bundle.manifest.to_json()
    assert found.git_commit == provenance.git_commit()


def test_the_metrics_are_those_of_the_run(finished):
    """Torch in the run and ONNX Runtime in the bundle measured the same photos."""
    run, bundle = finished.run.evaluation().metrics, finished.bundle.manifest.metrics
    assert (bundle.n, bundle.top1, bundle.confusion) == (run.n, run.top1, run.confusion)
    assert bundle.negative_log_likelihood == pytest.approx(run.negative_log_likelihood, abs=1e-4)
    assert run.top1_interval == wilson(round(run.top1 * run.n), run.n)
    assert (
        sum(finished.bundle.manifest.reference.predicted.values()) == finished.bundle.manifest.provenance.photos["val"]
    )


def test_the_next_training_is_the_next_version(finished, tmp_path):
    models = tmp_path / "models"
    for version in (1, 2):
        assert pipeline.publish(finished.run.path / "bundle", models).version == version
    assert Repository(models).versions("colours") == [1, 2]


def test_a_changed_bundle_is_not_published(finished, tmp_path):
    shutil.copytree(finished.run.path / "bundle", tmp_path / "bundle")
    (tmp_path / "bundle" / "report.html").write_text("other")
    with pytest.raises(BundleCorrupt):
        pipeline.publish(tmp_path / "bundle", tmp_path / "models")
    assert Repository(tmp_path / "models").models() == []


def test_a_graph_that_is_not_the_model_is_refused(copied, monkeypatch):
    """The exporter is made to give the graph of another head; nothing may come of it."""
    shutil.rmtree(copied.path / "bundle")
    real = export.to_onnx

    def another(model, temperature, crop, precision) -> Graph:
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.head.weight.copy_(model.head.weight.roll(1, 0))
        return real(other, temperature, crop, precision)

    monkeypatch.setattr(bundling.export, "to_onnx", another)
    with pytest.raises(VerificationFailed, match="is not the trained model: golden picture"):
        pipeline.export(copied, None, MACHINE, Silent())
    assert not (copied.path / "bundle").exists()


def test_exporting_again_replaces_the_runs_own_bundle_only(copied, tmp_path):
    before = open_bundle(copied.path / "bundle").manifest
    folder = pipeline.export(copied, None, MACHINE, Silent())
    assert open_bundle(folder).manifest.files["model.onnx"] == before.files["model.onnx"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputTaken, match="does not exist yet"):
        pipeline.export(copied, tmp_path / "taken", MACHINE, Silent())
    assert list((tmp_path / "taken").iterdir()) == []


def test_a_run_goes_on_where_it_was_left(copied):
    """Only what is missing is done again, from the cache where it can be."""
    (copied.path / "evaluation.json").unlink()
    listener = Listening()
    pipeline.resume(copied, MACHINE, listener)
    assert not any("features" in what for what in listener.tracked)
    assert copied.evaluation().metrics.n > 0
    pipeline.resume(copied, MACHINE, listener := Listening())
    assert listener.tracked == []


def test_training_twice_gives_the_same_weights(finished, photos, recipe, backbone_file, tmp_path):
    request = TrainingRequest(photos, "colours", str(backbone_file), tmp_path)
    again = pipeline.train(request, recipe(), MACHINE, Silent())
    expected, found = finished.run.weights(), again.weights()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_conflicts_are_said_and_strict_refuses_them(photos, recipe, tmp_path):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    shutil.copy(data / "red" / "000.png", data / "blue" / "stray.png")
    listener = Listening()
    run = pipeline.begin(TrainingRequest(data, "x", "none", tmp_path / "runs"), recipe(), listener)
    assert any("2 files whose content stands under two labels" in text for text in listener.said)
    assert json.loads((run.path / "check.json").read_text())["conflicts"] == [["blue/stray.png", "red/000.png"]]
    with pytest.raises(LabelConflict, match=r"blue/stray\.png = red/000\.png"):
        pipeline.begin(TrainingRequest(data, "x", "none", tmp_path / "runs", strict=True), recipe(), Silent())


def test_bad_requests_leave_no_run_behind(photos, recipe, tmp_path):
    with pytest.raises(WeightsUnusable):
        pipeline.train(TrainingRequest(photos, "x", "absent.pth", tmp_path / "runs"), recipe(), MACHINE, Silent())
    with pytest.raises(RecipeInvalid, match="'name' is 'Not a name'"):
        pipeline.train(TrainingRequest(photos, "Not a name", "none", tmp_path / "runs"), recipe(), MACHINE, Silent())
    assert not (tmp_path / "runs").exists()


def test_a_bundle_and_its_run_are_measured_alike(finished, photos):
    of_bundle = pipeline.evaluate_any(finished.bundle.path, photos, MACHINE, Silent())
    of_run = pipeline.evaluate_any(finished.run.path, photos, MACHINE, Silent())
    assert of_bundle.metrics.confusion == of_run.metrics.confusion
    assert of_bundle.metrics.n == 48
    assert of_bundle.seen_in_training is None
    assert of_run.seen_in_training == 48 - finished.run.evaluation().metrics.n


def test_a_run_is_measured_on_its_test_split(finished):
    found = pipeline.evaluate_any(finished.run.path, None, MACHINE, Silent())
    assert found == finished.run.evaluation()


def test_any_folder_per_class_will_do(finished, draw, tmp_path):
    """A class may be missing; broken files are listed and counted, and do not disturb the rest."""
    for number in range(50, 54):
        draw(tmp_path, "red", number)
    (tmp_path / "red" / "broken.png").write_bytes(b"x")
    found = pipeline.evaluate_any(finished.bundle.path, tmp_path, MACHINE, Silent())
    assert found.metrics.n == 4
    assert [row.support for row in found.metrics.per_class] == [0, 0, 4]
    assert [file.path for file in found.undecodable] == ["red/broken.png"]


def test_unknown_classes_are_refused_by_name(finished, draw, tmp_path):
    draw(tmp_path, "red", 1)
    draw(tmp_path, "purple", 1)
    with pytest.raises(UnknownLabels, match=r"classes purple, .*it knows blue, green, red"):
        pipeline.evaluate_any(finished.bundle.path, tmp_path, MACHINE, Silent())


def test_what_cannot_be_evaluated_says_why(finished, tmp_path):
    with pytest.raises(NothingToEvaluate, match="neither a bundle nor a run"):
        pipeline.evaluate_any(tmp_path, None, MACHINE, Silent())
    with pytest.raises(NothingToEvaluate, match="give a folder with --data"):
        pipeline.evaluate_any(finished.bundle.path, None, MACHINE, Silent())


@pytest.mark.parametrize("file", ["split.json", "calibration.json", "model.pt"])
def test_an_unfinished_run_says_how_to_go_on(copied, file):
    (copied.path / file).unlink()
    with pytest.raises(RunUnusable, match="train"):
        pipeline.evaluate_any(copied.path, None, MACHINE, Silent())


@pytest.mark.parametrize("file", ["recipe.json", "split.json", "calibration.json", "model.pt", "head.jsonl"])
def test_a_damaged_record_is_refused_by_name(copied, file):
    (copied.path / file).write_text('{"lr": "fast"')
    with pytest.raises(RunUnusable, match=f"{file} cannot be read"):
        (copied.recipe(), copied.split(), copied.calibrated(), copied.weights(), copied.rows("head.jsonl"))


def test_weights_of_another_network_are_refused(copied):
    torch.save({"head.weight": torch.zeros(2, 2)}, copied.path / "model.pt")
    with pytest.raises(RunUnusable, match="another network"):
        pipeline.evaluate_any(copied.path, None, MACHINE, Silent())


def test_a_random_backbone_is_trained_from_scratch(photos, recipe, tmp_path):
    """There is no head to begin with: features of a random network fit nothing that it becomes."""
    request = TrainingRequest(photos, "scratch", "none", tmp_path)
    run = pipeline.train(request, recipe(strategy="finetune", epochs=1), Machine("cpu", 0), Silent())
    assert run.rows("head.jsonl") == []
    assert [row["train_loss"] is None for row in run.rows("curves.jsonl")] == [True, False]
    assert run.source().weights_identity == "none"


def test_two_runs_in_one_second_get_two_folders(photos, recipe, tmp_path):
    request = TrainingRequest(photos, "x", "none", tmp_path)
    paths = {pipeline.begin(request, recipe(), Silent()).path for _ in range(3)}
    assert len(paths) == 3


def test_head_scores_what_the_weights_promise(shared, tmp_path):
    """A tenth of the real photos, so that it is quick: real weights must do far better than chance."""
    data = tmp_path / "photos"
    for folder in sorted((shared / "data" / "flower_photos").iterdir()):
        (data / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*.jpg"))[:24]:
            shutil.copy(path, data / folder.name)
    found = [pipeline.data.check(pipeline.data.scan(data, Silent()))[0]]
    digests = [[photo.digest for photo in found[0] if photo.label == label.name] for label in data.iterdir()]
    seed = pipeline.split.usable_seed(digests)
    weights = str(shared / "weights" / "mobilenet_v2_imagenet.pth")
    recipe = pipeline.Recipe(strategy="head", split_seed=seed)
    run = pipeline.train(TrainingRequest(data, "few", weights, tmp_path / "runs"), recipe, MACHINE, Silent())
    trials = run.rows("head.jsonl")
    assert max(row["val_top1"] for row in trials) > 0.5
    assert np.isfinite(run.evaluation().metrics.negative_log_likelihood)
