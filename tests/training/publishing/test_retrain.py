import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundle.manifest import Manifest
from bundle.policy import edit_policy
from bundle.repository import MANIFEST, Bundle, Repository, sha256_of
from training.config import Machine
from training.errors import GateRefused, RecipeInvalid, RetrainRunning
from training.progress import Silent
from training.publishing import champion, lock, retrain, unfinished
from training.publishing.gate_policy import GatePolicy
from training.publishing.release import Release
from training.runs.records import TrainingRequest
from training.runs.run import Run, every

MACHINE = Machine("cpu", 0)
EASY = GatePolicy(max_slowdown=50)  # whoever else computes here

# What is there when a retrain is killed in a stage: the records of the stages before it.
LEFT = {
    "check": ["source.json", "recipe.json", "retrain.json"],
    "split": ["photos.jsonl", "check.json"],
    "train": ["split.json"],
    "calibrate": ["model.pt", "rate.json", "curves.jsonl"],
    "evaluate": ["calibration.json"],
    "export": ["evaluation.json", "seconds.json"],
    "verify": ["bundle", "verification.json", "report.html"],
    "gate": ["verified.json"],
    "publish": ["gate.json"],
    "the end": ["published.json"],
}


class Listening(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def killed_in(stage, finished, folder):
    """The finished run as it was when it came to `stage`, in a folder of its own."""
    names = list(LEFT)
    kept = [file for name in names[: names.index(stage) + 1] for file in LEFT[name]]
    folder.mkdir(parents=True)
    for path in finished.run.path.iterdir():
        if path.name in kept:
            shutil.copytree(path, folder / path.name) if path.is_dir() else shutil.copy(path, folder)
    return Run(folder)


@dataclass(frozen=True)
class Finished:
    run: Run
    bundle: Bundle
    models: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, photos, small):
    """As everywhere else, but with a network that is quick to train and to export. Read only."""
    root = tmp_path_factory.mktemp("small")
    request = TrainingRequest(photos, "colours", "none", root / "runs")
    done, bundle = retrain.retrain(request, small, MACHINE, Release(root / "models"), Silent())
    return Finished(done, bundle, root / "models")


@pytest.fixture(scope="module")
def small(recipe):
    return recipe(strategy="scratch", backbone="small_cnn", epochs=3)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs" / "colours"


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path / "models", EASY)


@pytest.fixture
def published(finished, tmp_path):
    """A copy of the folder of models that a test may publish into."""
    shutil.copytree(finished.models, tmp_path / "models")
    return tmp_path / "models"


def test_the_finished_run_has_exactly_these_records(finished):
    """So that the stages below leave nothing out."""
    records = {path.name for path in finished.run.path.iterdir()}
    assert records - {"recipe.toml", "checkpoint.pt"} == {file for files in LEFT.values() for file in files}


@pytest.mark.parametrize("stage", LEFT)
def test_killed_in_any_stage_it_goes_on_to_the_same_version(stage, finished, runs, release):
    run = killed_in(stage, finished, runs / "20260101T000000Z")
    if stage == "the end":  # published elsewhere, which is no reason not to publish here
        release = dataclasses.replace(release, models=finished.models)
    bundle = retrain.resume(run, MACHINE, release, Silent())
    assert Repository(release.models).versions("colours") == [1]
    expected = finished.bundle.manifest
    assert [bundle.manifest.files[name] for name in ("model.onnx", "golden.npz")] == [
        expected.files[name] for name in ("model.onnx", "golden.npz")
    ]
    assert bundle.manifest.metrics == expected.metrics
    assert bundle.manifest.provenance.run == expected.provenance.run
    assert {file for files in LEFT.values() for file in files} <= {path.name for path in run.path.iterdir()}


def test_what_was_published_right_before_the_crash_is_not_published_twice(finished, published, runs):
    """Killed between the rename and the note of it in the run."""
    run = killed_in("publish", finished, runs / "20260101T000000Z")
    bundle = retrain.resume(run, MACHINE, Release(published, EASY), Silent())
    assert bundle.version == 1
    assert Repository(published).versions("colours") == [1]
    assert run.has("published.json")


def test_other_versions_do_not_hide_the_one_that_was_published(finished, published, runs):
    (published / "colours" / "2").mkdir()
    (published / "colours" / "2" / MANIFEST).write_text("{")
    run = killed_in("publish", finished, runs / "20260101T000000Z")
    assert retrain.resume(run, MACHINE, Release(published, EASY), Silent()).version == 1


def test_killed_writers_leave_nothing_behind(finished, runs, release):
    run = killed_in("verify", finished, runs / "20260101T000000Z")
    staged = run.path / f".bundle-{'0' * 32}"
    staged.mkdir()
    (staged / "model.onnx").write_bytes(b"half")
    (run.path / f".model.pt-{'1' * 32}").write_bytes(b"half")
    (release.models / "colours" / ".staging-1").mkdir(parents=True)
    retrain.resume(run, MACHINE, release, Silent())
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]
    assert {path.name for path in (release.models / "colours").iterdir()} == {"1"}


def test_a_bundle_that_was_damaged_meanwhile_is_exported_again(finished, runs, release):
    run = killed_in("verify", finished, runs / "20260101T000000Z")
    (run.path / "bundle" / "model.onnx").write_bytes(b"half")
    bundle = retrain.resume(run, MACHINE, release, Silent())
    assert bundle.manifest.files["model.onnx"] == finished.bundle.manifest.files["model.onnx"]


def test_another_precision_is_exported_anew(finished, runs, release):
    run = killed_in("gate", finished, runs / "20260101T000000Z")
    wanted = dataclasses.replace(release, precision="fp16")
    assert retrain.resume(run, MACHINE, wanted, Silent()).manifest.model.precision == "fp16"


def test_an_int8_model_that_is_not_wanted_any_more_is_not_published(finished, runs, release):
    run = killed_in("verify", finished, runs / "20260101T000000Z")
    assert (run.path / "bundle" / "model.int8.onnx").exists()
    wanted = dataclasses.replace(release, int8=False)
    assert retrain.resume(run, MACHINE, wanted, Silent()).manifest.variants == ()


@pytest.fixture
def next_run(finished, runs):
    """A run that another seed's training left, ready to be judged against version 1."""
    run = killed_in("gate", finished, runs / "20260102T000000Z")
    source = json.loads((run.path / "source.json").read_text())
    (run.path / "source.json").write_text(json.dumps({**source, "run": "another"}))
    reseal(run, lambda manifest: dataclasses.replace(
        manifest, provenance=dataclasses.replace(manifest.provenance, run="another")))  # fmt: skip
    return run


def reseal(run, change):
    path = run.path / "bundle" / MANIFEST
    path.write_text(change(Manifest.from_json(path.read_text())).to_json())


def worse(manifest):
    """Every answer under another name."""
    return dataclasses.replace(manifest, labels=("green", "red", "blue"))


def test_verdict_and_parent_are_in_the_published_manifest(finished, published, next_run, runs):
    killed_in("the end", finished, runs / "20260101T000000Z")  # the parent's run is still there
    bundle = retrain.resume(next_run, MACHINE, Release(published, EASY), Silent())
    assert bundle.version == 2
    verdict, parent = bundle.manifest.gate, bundle.manifest.provenance.parent
    digest = sha256_of(published / "colours" / "1" / MANIFEST)
    assert (verdict.passed, verdict.champion, verdict.champion_manifest_sha256) == (True, "colours/1", digest)
    assert verdict == next_run.find("gate.json", type(verdict))
    assert (parent.name, parent.version, parent.manifest_sha256) == ("colours", 1, digest)
    assert parent.run == finished.run.source().run
    assert (parent.photos_added, parent.photos_removed) == (0, 0)
    assert finished.bundle.manifest.provenance.parent is None


def test_photos_that_came_and_went_are_unknown_where_the_parents_run_is_gone(published, next_run):
    parent = retrain.resume(next_run, MACHINE, Release(published, EASY), Silent()).manifest.provenance.parent
    assert (parent.photos_added, parent.photos_removed) == (None, None)


def test_photos_are_counted_by_content_and_class(finished):
    split = finished.run.split()
    fewer = dataclasses.replace(split, photos=split.photos[3:])
    moved = dataclasses.replace(split, photos=(dataclasses.replace(split.photos[0], label="red"), *split.photos[1:]))
    renamed = dataclasses.replace(split, photos=tuple(dataclasses.replace(row, path="x") for row in split.photos))
    for now, before, expected in ((split, fewer, (3, 0)), (moved, split, (1, 1)), (renamed, split, (0, 0))):
        parent = champion.parent(finished.bundle, now, before)
        assert (parent.photos_added, parent.photos_removed) == expected


def test_a_worse_version_is_refused_with_reasons_and_nothing_is_published(published, next_run):
    reseal(next_run, worse)
    with pytest.raises(GateRefused, match=r"top-1 is \S+% lower, where 2.0% is allowed") as refused:
        retrain.resume(next_run, MACHINE, Release(published, EASY), Silent())
    assert "colours/1 goes on serving" in str(refused.value)
    assert {path.name for path in (published / "colours").iterdir()} == {"1"}
    assert not json.loads((next_run.path / "gate.json").read_text())["passed"]


def test_a_verdict_holds_while_policy_and_champion_are_the_same(published, next_run, publish_bundle):
    release = Release(published, dataclasses.replace(EASY, max_growth=0.5))
    with pytest.raises(GateRefused, match="the model has"):
        retrain.resume(next_run, MACHINE, release, Silent())
    written = (next_run.path / "gate.json").stat().st_mtime_ns
    with pytest.raises(GateRefused, match="the model has"):
        retrain.resume(next_run, MACHINE, release, Silent())
    assert (next_run.path / "gate.json").stat().st_mtime_ns == written
    shutil.copytree(published / "colours" / "1", published / "colours" / "2")
    manifest = dataclasses.replace(Manifest.from_json((published / "colours" / "2" / MANIFEST).read_text()), gate=None)
    (published / "colours" / "2" / MANIFEST).write_text(manifest.to_json())
    with pytest.raises(GateRefused, match="colours/2 goes on serving"):
        retrain.resume(next_run, MACHINE, release, Silent())
    assert retrain.resume(next_run, MACHINE, Release(published, EASY), Silent()).version == 3


def test_without_the_gate_nothing_is_compared(published, next_run):
    reseal(next_run, worse)
    bundle = retrain.resume(next_run, MACHINE, Release(published, None), Silent())
    assert (bundle.version, bundle.manifest.gate) == (2, None)
    assert bundle.manifest.provenance.parent.version == 1


def test_the_pinned_version_is_the_champion_and_stays_pinned(published, next_run):
    shutil.copytree(published / "colours" / "1", published / "colours" / "2")
    edit_policy(published, "colours", lambda policy: policy.pinned_to(1, 2))
    before = (published / "colours" / "serving.json").read_bytes()
    bundle = retrain.resume(next_run, MACHINE, Release(published, EASY), Silent())
    assert (bundle.version, bundle.manifest.gate.champion) == (3, "colours/1")
    assert (published / "colours" / "serving.json").read_bytes() == before


def test_the_same_command_goes_on_with_the_run_that_it_left(finished, photos, small, runs, release):
    """Same photos, recipe, weights and folder of models; the run folder that looked at the photos again goes."""
    left = killed_in("export", finished, runs / "20260101T000000Z")
    unfinished.note(left, release)
    request = TrainingRequest(photos, "colours", "none", runs.parent)
    listener = Listening()
    run, bundle = retrain.retrain(request, small, MACHINE, release, listener)
    assert run.path == left.path
    assert any("going on with the unfinished" in text for text in listener.said)
    assert bundle.manifest.provenance.run == finished.run.source().run
    assert [found.path for found in every(runs)] == [left.path]


@pytest.fixture
def asked(finished, runs, release):
    """A new run that is split, beside one that was left in the middle."""
    left = killed_in("export", finished, runs / "20260101T000000Z")
    unfinished.note(left, release)
    new = killed_in("export", finished, runs / "20260102T000000Z")
    return left, new


@pytest.mark.parametrize(
    "end",
    [
        lambda run, release: (run.path / "retrain.json").unlink(),
        lambda run, release: (run.path / "split.json").unlink(),
        lambda run, release: (run.path / "published.json").write_text("{}"),
        lambda run, release: shutil.copy(refusal(run), run.path / "gate.json"),
        lambda run, release: unfinished.note(run, dataclasses.replace(release, models=run.path)),
        lambda run, release: (run.path / "recipe.json").write_text(
            (run.path / "recipe.json").read_text().replace('"epochs": 3', '"epochs": 4')
        ),
    ],
    ids=["no retrain", "no split", "published", "refused", "other models", "other recipe"],
)
def test_only_the_same_that_is_not_over_is_gone_on_with(asked, release, end):
    left, new = asked
    assert unfinished.same(new, release).path == left.path
    end(left, release)
    assert unfinished.same(new, release) is None


def refusal(run):
    path = run.path.parent / "gate.json"
    path.write_text(json.dumps({"passed": False, "reasons": ["it is worse"], "remarks": [], "policy": {},
                                "champion": None, "champion_manifest_sha256": None, "photos": 0, "left_out": 0,
                                "only_challenger_right": 0, "only_champion_right": 0, "p_value": None,
                                "challenger_figures": None, "champion_figures": None, "per_class": []}))  # fmt: skip
    return path


def test_a_resumed_run_keeps_what_was_asked_for(finished, runs, release):
    run = killed_in("export", finished, runs / "20260101T000000Z")
    wanted = Release(release.models.resolve(), dataclasses.replace(EASY, max_loss=0.5), "fp16")
    unfinished.note(run, wanted)
    assert unfinished.release_of(run) == wanted
    (run.path / "retrain.json").unlink()
    assert unfinished.release_of(run) is None


def test_a_second_retrain_of_the_model_is_refused(photos, small, runs, release):
    request = TrainingRequest(photos, "colours", "none", runs.parent)
    with lock.held(runs), pytest.raises(RetrainRunning):
        retrain.retrain(request, small, MACHINE, release, Silent())
    assert list(every(runs)) == []


def test_a_bad_name_leaves_no_folder_behind(photos, small, tmp_path, release):
    request = TrainingRequest(photos, "Not a name", "none", tmp_path / "runs")
    with pytest.raises(RecipeInvalid, match="'name' is 'Not a name'"):
        retrain.retrain(request, small, MACHINE, release, Silent())
    assert not (tmp_path / "runs").exists()
