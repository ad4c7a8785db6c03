import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import pipeline
from training.config import Machine
from training.errors import TrainingDiverged
from training.learning import loop
from training.learning.loop import Epoch, State
from training.networks import weights
from training.networks.backbones import Classifier
from training.progress import Silent
from training.run import Run
from training.transfer import strategies

ROOT = Path(__file__).parents[3]

# Starts or resumes a fine-tuning; ends itself with SIGKILL before the given training step of this process.
CHILD = """
import os, signal, sys
from pathlib import Path
from training import pipeline
from training.config import Machine, Recipe
from training.progress import Silent
from training.run import Run

class Killing(Silent):
    def track(self, items, what, total):
        for step, item in enumerate(items, start=1):
            if what.startswith("Fine-tuning") and step == KILL_BEFORE:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

if __name__ == "__main__":
    photos, weights, runs, seed, workers, KILL_BEFORE, seconds, resume = sys.argv[1:]
    KILL_BEFORE = int(KILL_BEFORE)
    machine = Machine("cpu", int(workers), float(seconds))
    if resume:
        pipeline.resume(Run(Path(resume)), machine, Killing())
    else:
        recipe = Recipe(strategy="finetune", split_seed=int(seed), resize=40, crop=32, train_size=32, batch_size=8,
                        precision="fp32", epochs=2, ema_decay=0.9, lr=0.01)
        pipeline.train(pipeline.Request(Path(photos), "killed", weights, Path(runs)), recipe, machine, Killing())
"""


@pytest.fixture
def child(tmp_path, photos, recipe, backbone_file):
    script = tmp_path / "child.py"
    script.write_text(CHILD)

    def start(runs, workers=0, kill_before=0, seconds=1e9, resume=""):
        arguments = [photos, backbone_file, runs, recipe().split_seed, workers, kill_before, seconds, resume]
        done = subprocess.run(
            [sys.executable, str(script), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if kill_before else 0), done.stderr
        (path,) = (runs / "killed").iterdir()
        return path

    return start


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Filled by the first test that needs it: starting torch takes seconds."""
    return {}


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["checkpoint each step", "checkpoint each epoch"])
def test_a_killed_training_resumes_to_the_same_bits(child, tmp_path, uninterrupted, seconds):
    """SIGKILL in the middle of the second epoch; reading in worker processes or not makes no difference either."""
    if not uninterrupted:
        whole = child(tmp_path / "whole", workers=1)
        uninterrupted["model"] = torch.load(whole / "model.pt", weights_only=True)
        uninterrupted["curves"] = (whole / "curves.jsonl").read_text()
    killed = child(tmp_path / "runs", kill_before=7, seconds=seconds)
    assert (killed / "checkpoint.pt").exists()
    assert not (killed / "model.pt").exists()
    child(tmp_path / "runs", seconds=seconds, resume=killed)
    model = torch.load(killed / "model.pt", weights_only=True)
    assert model.keys() == uninterrupted["model"].keys()
    assert all(torch.equal(model[name], tensor) for name, tensor in uninterrupted["model"].items())
    assert (killed / "curves.jsonl").read_text() == uninterrupted["curves"]


@pytest.fixture
def begun(tmp_path, photos, recipe, backbone_file):
    """begun(**fields) gives (run, model, material, start row) of a fine-tuning that is about to begin."""

    def begin(**fields):
        wanted = recipe(strategy="finetune", **fields)
        started = pipeline.begin(pipeline.Request(photos, "x", str(backbone_file), tmp_path), wanted, Silent())
        material = pipeline.material_of(started, Machine("cpu", 0))
        model = weights.build(wanted, 3, str(backbone_file))
        row = strategies.fit_head(model, material, wanted, started.path, tmp_path / "cache", Silent())
        return started, model, material, row

    return begin


def finetune(started: Run, model: Classifier, material, row) -> list[Epoch]:
    return loop.finetune(model, row, material, started.recipe(), Machine("cpu", 0), started.path, Silent())


def test_it_keeps_the_best_epoch_and_writes_the_curve(begun):
    started, model, material, row = begun(epochs=2, optimizer="adamw", lr=0.0005)
    history = finetune(started, model, material, row)
    assert [found["epoch"] for found in started.rows("curves.jsonl")] == [0, 1, 2]
    best = max(history, key=lambda found: (found.val_top1, -found.val_loss))
    assert loop.validate(model, material, Silent()) == pytest.approx((best.val_loss, best.val_top1), abs=1e-5)


def test_a_finished_training_is_not_trained_again(begun):
    started, model, material, row = begun(epochs=1)
    finetune(started, model, material, row)
    before = weights.digest(model)
    finetune(started, weights.build(started.recipe(), 3, "none"), material, row)
    assert weights.digest(model) == before


def test_it_stops_early_without_progress(begun):
    """With a rate that changes nothing, no epoch after the first is better."""
    started, model, material, row = begun(epochs=6, patience=1, lr=1e-8, momentum=0.0, ema_decay=0.0)
    history = finetune(started, model, material, row)
    assert len(history) < 7


def test_bf16_trains_too(begun):
    started, model, material, row = begun(epochs=1, precision="bf16")
    assert math.isfinite(finetune(started, model, material, row)[-1].train_loss)


def test_a_rate_that_is_too_high_is_named(begun):
    started, model, material, row = begun(epochs=3, lr=10.0, warmup_epochs=0.0)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"no longer a number at step 1; .*under --lr 10"):
        finetune(started, model, material, row)


def test_equal_accuracy_is_decided_by_loss():
    rows = [Epoch(0, 0, 0, 0.5, 0.9), Epoch(1, 0, 0, 0.6, 0.8), Epoch(2, 0, 0, 0.4, 0.9), Epoch(3, 0, 0, 0.7, 0.9)]
    state = State(rows[:3], {})
    assert state.improved()
    assert state.stale() == 0
    state = State(rows, {})
    assert not state.improved()
    assert state.stale() == 1


def test_a_good_head_does_not_make_the_first_epochs_stale():
    """Fine-tuning often begins below the head that it starts from."""
    rows = [Epoch(0, 0, 0, 0.1, 0.99), Epoch(1, 0, 0, 0.9, 0.5), Epoch(2, 0, 0, 0.8, 0.6)]
    assert State(rows, {}).stale() == 0
    assert State(rows[:1], {}).stale() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_it_trains_on_cuda(begun, precision):
    started, model, _, row = begun(epochs=1, precision=precision)
    material = pipeline.material_of(started, Machine("cuda", 0))
    history = loop.finetune(model, row, material, started.recipe(), Machine("cuda", 0), started.path, Silent())
    assert math.isfinite(history[-1].train_loss)
