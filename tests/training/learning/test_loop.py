import dataclasses
import math
import signal
import uuid

import pytest
import torch

from tests.training.learning import killed
from training import pipeline
from training.config import Machine, Recipe
from training.errors import TrainingDiverged
from training.learning import loop
from training.learning.distributed import World
from training.learning.history import Epoch, State
from training.networks import weights
from training.progress import Silent
from training.runs.context import TrainingSession
from training.runs.records import TrainingRequest
from training.transfer.fitting import fit_head


@pytest.fixture
def child(tmp_path, photos, recipe, backbone_file):
    """child(runs, …) fine-tunes in a process of its own, or goes on with the run `resume`; gives the run's folder."""

    def start(runs, workers=0, kill_before=0, seconds=1e9, resume=None, **fields):
        wanted = recipe(strategy="finetune", epochs=2, ema_decay=0.9, lr=0.01, **{"mixup": Recipe().mixup, **fields})
        request = TrainingRequest(photos, "killed", "none" if "backbone" in fields else str(backbone_file), runs)
        errors = tmp_path / f"errors-{uuid.uuid4().hex}"
        job = killed.Job(request, wanted, Machine("cpu", workers, seconds), errors, resume, kill_before)
        assert killed.run(job) == (-signal.SIGKILL if kill_before else 0), errors.read_text()
        (path,) = (runs / "killed").iterdir()
        return path

    return start


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Filled by the first test that needs it."""
    return {}


EVERYTHING = {
    "optimizer": "rmsprop", "schedule": "one-cycle", "accumulate": 2, "clip_norm": 1.0, "find_lr": True, "l1": 0.01,
    "mixup": 0.2, "cutmix": 1.0, "balance": "weights", "backbone": "small_cnn", "tuned_blocks": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "seconds", "fields"),
    [("default", 0.0, {"batch_norm": "train"}), ("default", 1e9, {"batch_norm": "train"}), ("all", 0.0, EVERYTHING)],
    ids=["checkpoint each step", "checkpoint each epoch", "everything on"],
)
def test_a_killed_training_resumes_to_the_same_bits(child, tmp_path, uninterrupted, name, seconds, fields):
    """SIGKILL in the middle of the second epoch; reading in worker processes or not makes no difference either."""
    if name not in uninterrupted:
        whole = child(tmp_path / "whole", workers=1, **fields)
        uninterrupted[name] = torch.load(whole / "model.pt", weights_only=True), (whole / "curves.jsonl").read_text()
    expected, curves = uninterrupted[name]
    run = child(tmp_path / "runs", kill_before=8, seconds=seconds, **fields)
    assert (run / "checkpoint.pt").exists()
    assert not (run / "model.pt").exists()
    child(tmp_path / "runs", seconds=seconds, resume=run)
    model = torch.load(run / "model.pt", weights_only=True)
    assert model.keys() == expected.keys()
    assert all(torch.equal(model[name], tensor) for name, tensor in expected.items())
    assert (run / "curves.jsonl").read_text() == curves


@pytest.fixture
def begun(tmp_path, photos, recipe, backbone_file):
    """begun(**fields) gives (run, model, session, start row) of a fine-tuning that is about to begin."""

    def begin(**fields):
        wanted = recipe(strategy="finetune", **fields)
        started = pipeline.begin(TrainingRequest(photos, "x", str(backbone_file), tmp_path), wanted, Silent())
        context = pipeline.context_of(started, Machine("cpu", 0))
        model = weights.build(wanted, 3, str(backbone_file))
        machine, cache = Machine("cpu", 0), tmp_path / "cache"
        session = TrainingSession(context, wanted, machine, started.path, cache, Silent(), pretrained=True)
        return started, model, session, fit_head(model, session)

    return begin


def test_it_keeps_the_best_epoch_and_writes_the_curve(begun):
    started, model, session, row = begun(epochs=2, optimizer="adamw", lr=0.0005)
    history = loop.finetune(model, row, session)
    assert [found["epoch"] for found in started.rows("curves.jsonl")] == [0, 1, 2]
    best = max(history, key=lambda found: (found.val_top1, -found.val_loss))
    assert loop.validate(model, session.context, Silent()) == pytest.approx((best.val_loss, best.val_top1), abs=1e-5)


def test_a_finished_training_is_not_trained_again(begun):
    started, model, session, row = begun(epochs=1)
    loop.finetune(model, row, session)
    before = weights.digest(model)
    loop.finetune(weights.build(started.recipe(), 3, "none"), row, session)
    assert weights.digest(model) == before


def test_it_stops_early_without_progress(begun):
    """With a rate that changes nothing, no epoch after the first is better."""
    _, model, session, row = begun(epochs=6, patience=1, lr=1e-8, momentum=0.0, ema_decay=0.0)
    history = loop.finetune(model, row, session)
    assert len(history) < 7


def test_bf16_trains_too(begun):
    _, model, session, row = begun(epochs=1, precision="bf16")
    assert math.isfinite(loop.finetune(model, row, session)[-1].train_loss)


def test_a_rate_that_is_too_high_is_named(begun):
    _, model, session, row = begun(epochs=3, lr=10.0, warmup_epochs=0.0)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"no longer a number at step 1; .*under --lr 10"):
        loop.finetune(model, row, session)


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


@pytest.fixture
def small_job(tmp_path, photos, recipe):
    """small_job(batch, **fields) is what a process that follows is told: model, row and session.

    The model is the small baseline, which has no batch norm, for one epoch without dropout. Batches are a quarter of
    the photos times `batch`.
    """

    def job(batch=1, **fields):
        wanted = recipe(strategy="scratch", backbone="small_cnn", epochs=1, dropout=0.0, lr=0.05, warmup_epochs=0.0)
        started = pipeline.begin(TrainingRequest(photos, "x", "none", tmp_path), wanted, Silent())
        context = pipeline.context_of(started, Machine("cpu", 0))
        size = len(context.photos("train")) // 4 * batch
        wanted = dataclasses.replace(wanted, batch_size=size, **fields)
        start = Epoch(0, 0.0, None, 9.0, 0.0)
        machine, cache = Machine("cpu", 0), tmp_path / "cache"
        session = TrainingSession(context, wanted, machine, started.path, cache, Silent(), pretrained=False)
        return weights.build(wanted, 3, "none"), start, session

    return job


@pytest.fixture
def small(small_job):
    """small(batch, **fields) does such a job, and returns (history, weights)."""

    def train(batch=1, **fields):
        job = small_job(batch, **fields)
        return loop.finetune(*job), job[0].state_dict()

    return train


@dataclasses.dataclass(frozen=True)
class Telling(World):
    """What one that follows hears of process 0."""

    said: list = dataclasses.field(default_factory=list)

    def tell(self, message):
        return self.said.pop(0)


def test_a_process_that_follows_goes_on_after_a_training_that_failed_for_all(small_job):
    """What the loss of all together says, the first process reports: it may be one candidate of several."""
    broken, good = small_job(), small_job()
    with torch.no_grad():
        broken[0].head.weight.fill_(float("nan"))
    before = weights.digest(good[0])
    leader = Telling(said=[broken, good, None])
    loop.follow(leader)
    assert leader.said == []
    assert weights.digest(good[0]) != before


def test_several_batches_to_an_update_are_one_larger_batch(small):
    """Two batches of n teach what one of 2 n does; clipping sees the gathered gradient."""
    history, together = small(2, clip_norm=0.1)
    parts_history, parts = small(1, accumulate=2, clip_norm=0.1)
    assert parts_history[-1].train_loss == pytest.approx(history[-1].train_loss, rel=1e-5)
    for name, tensor in together.items():
        assert torch.allclose(parts[name], tensor, rtol=1e-4, atol=1e-6), name
    _, apart = small(1, clip_norm=0.1)
    assert not torch.allclose(apart["head.weight"], together["head.weight"], rtol=1e-4, atol=1e-6)


def test_the_last_group_of_an_epoch_counts_its_own_batches(small):
    """An epoch has four batches, so groups of four and groups of a hundred are the same."""
    _, four = small(accumulate=4)
    _, hundred = small(accumulate=100)
    assert all(torch.equal(hundred[name], tensor) for name, tensor in four.items())


def on_cuda(started, session):
    machine = Machine("cuda", 0)
    return dataclasses.replace(session, context=pipeline.context_of(started, machine), machine=machine)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch, at the import of its compiler
def test_a_compiled_training_keeps_plain_names(begun):
    started, model, session, row = begun(epochs=1, compile=True)
    names = list(model.state_dict())
    loop.finetune(model, row, on_cuda(started, session))
    record = torch.load(started.path / "checkpoint.pt", weights_only=True)
    assert list(record["parts"]["model"]) == list(record["parts"]["ema"]) == list(model.state_dict()) == names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_it_trains_on_cuda(begun, precision):
    started, model, session, row = begun(epochs=1, precision=precision)
    history = loop.finetune(model, row, on_cuda(started, session))
    assert math.isfinite(history[-1].train_loss)
