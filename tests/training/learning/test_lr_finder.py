import dataclasses
import json

import pytest
import torch

from training import pipeline
from training.config import Machine
from training.errors import RunUnusable, TrainingDiverged
from training.learning import loop, lr_finder
from training.learning.history import Epoch
from training.networks import weights
from training.progress import Silent
from training.runs.context import TrainingSession
from training.runs.records import TrainingRequest
from training.runs.run import Run

START = Epoch(0, 0.0, None, 9.0, 0.0)
MACHINE = Machine("cpu", 0)


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def begun(tmp_path, photos, recipe):
    """begun(**fields) gives the model and the session of a training of the small baseline."""

    def begin(**fields):
        wanted = recipe(strategy="scratch", backbone="small_cnn", **fields)
        started = pipeline.begin(TrainingRequest(photos, "x", "none", tmp_path), wanted, Silent())
        context = pipeline.context_of(started, MACHINE)
        session = TrainingSession(
            context, wanted, MACHINE, started.path, tmp_path / "cache", Silent(), pretrained=False
        )
        return weights.build(wanted, 3, "none"), session

    return begin


def test_a_training_with_the_found_rate_is_the_one_with_that_rate_given(begun):
    """Dropout draws from the random state, so this fails if the sweep leaves a trace in it or in the model."""
    model, session = begun(epochs=1, find_lr=True, optimizer="adamw")
    folder, recipe = session.folder, session.recipe
    loop.finetune(model, START, session)
    record = json.loads((folder / lr_finder.RECORD).read_text())
    assert record["lr"] != recipe.lr == Run(folder).recipe().lr
    assert Run(folder).used() == {**recipe.record(), "lr": record["lr"]}
    assert record["rates"][0] == pytest.approx(lr_finder.MIN_LR)
    assert len(record["rates"]) == len(record["gains"]) > 20

    again, session = begun(epochs=1, lr=record["lr"], optimizer="adamw")
    loop.finetune(again, START, session)
    assert not (session.folder / lr_finder.RECORD).exists()
    assert weights.digest(again) == weights.digest(model)


def test_what_was_measured_is_said_once_and_taken_ever_after(begun):
    said = Said()
    model, session = begun(find_lr=True)
    session = dataclasses.replace(session, reporter=said)
    folder = session.folder
    found = lr_finder.measured(model, session, frozen=False)
    (line,) = said.lines
    assert f"learning rate {found.lr:g}, found by a sweep" in line
    (folder / lr_finder.RECORD).write_text('{"lr": 0.125, "rates": [1.0], "gains": [2.0]}')
    assert lr_finder.measured(model, session, frozen=False) == dataclasses.replace(session.recipe, lr=0.125)
    assert len(said.lines) == 1
    (folder / lr_finder.RECORD).write_text('{"lr": 0.1')
    with pytest.raises(RunUnusable, match="delete it to measure again"):
        lr_finder.measured(model, session, frozen=False)


def test_a_network_that_is_no_number_has_no_rate(begun):
    model, session = begun(find_lr=True)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="at step 1"):
        lr_finder.find(model, session, frozen=False)


def test_a_tenth_of_the_rate_with_the_largest_gain_is_suggested():
    assert lr_finder.suggestion([0.001, 0.012345, 0.1, 1.0], [0.0, 0.5, 0.25, -3.0]) == 0.00123


def test_gains_are_measured_against_the_model_as_it_was(begun):
    """Before the first step there is no difference, as both drop the same units; rates that teach gain much."""
    model, session = begun(find_lr=True)
    sweep = lr_finder.find(model, session, frozen=False)
    assert sweep.gains[0] == 0
    assert max(sweep.gains) > 0.5
    assert sweep.lr == lr_finder.suggestion(sweep.rates, sweep.gains)


def test_an_average_forgets_its_start():
    average = lr_finder.ExponentialAverage()
    for _ in range(3):
        average.add(2.0)
        assert average.value == pytest.approx(2.0)
    average.add(5.0)
    assert 2.0 < average.value < 5.0
