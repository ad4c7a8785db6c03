"""A shadow computes copies and is compared; whoever asks gets the live answer, no later than without it."""

import asyncio
import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.policy import ServingPolicy, edit_policy
from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service import shadow as shadow_module
from service.classifier import Answer, Classifier, Request, Target
from service.engine import Outputs, open_on_cpu
from service.lanes import Lanes
from service.loader import LiveModel
from service.registry import Registry
from service.shadow import Shadow

PATIENCE_S = 60


class ShadowEngine:
    """The real engine behind a gate, whose answers `change` may spoil once it has proven itself."""

    batch_sizes = (1,)

    def __init__(self, bundle: Bundle) -> None:
        self._inner = open_on_cpu(bundle)
        self.provider = self._inner.provider
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.change: Callable[[np.ndarray], np.ndarray] | None = None
        self.scheduler = -1

    def run(self, parts: Any, evidence: bool = False) -> Outputs:
        outputs = self._inner.run(parts, evidence)
        if self.change is None:
            return outputs
        self.scheduler = os.sched_getscheduler(0)
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        return outputs._replace(probabilities=self.change(outputs.probabilities))

    def close(self) -> None:
        self._inner.close()


class Told:
    """What the shadow tells."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.differences: list[float] = []
        self.versions: set[int] = set()

    def __call__(self, model: LiveModel, outcome: str, difference: float | None) -> None:
        self.versions.add(model.version)
        if difference is not None:
            self.differences.append(difference)
        self.outcomes[outcome] += 1


class Trial:
    """A model whose shadow's engine is at hand, and a classifier to ask."""

    def __init__(self, root: Path, options: dict[str, Any]) -> None:
        self.engines: dict[int, ShadowEngine] = {}
        self.registry = Registry(Repository(root), self._open)
        self.registry.load_all()
        self.told = Told()
        self.shadow = Shadow(self.registry, Limits(**options), self.told)
        self.lanes = Lanes(1, 100, 2**30)
        self._classifier = Classifier(self.registry, self.lanes, Limits(), self.shadow.copy)

    @property
    def engine(self) -> ShadowEngine:
        route = self.registry.routes()["flowers"]
        assert route.shadow is not None
        return self.engines[route.shadow.model.version]

    def ask(self, *pictures: bytes, target: Target | None = None) -> list[Answer]:
        async def ask() -> list[Answer]:
            return [await self._classifier.classify(Request(picture, target or Target())) for picture in pictures]

        return asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))

    def close(self) -> None:
        for engine in self.engines.values():
            engine.gate.set()
        self.lanes.close()
        self.shadow.close()
        self.registry.close()

    def _open(self, bundle: Bundle) -> ShadowEngine:
        self.engines[bundle.version] = ShadowEngine(bundle)
        return self.engines[bundle.version]


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    """Version 1 is stable, version 2 the shadow of every request."""
    publish_bundle(tmp_path)
    publish_bundle(tmp_path)
    edit_policy(tmp_path, "flowers", lambda policy: policy.pinned_to(1, 2).with_shadow(2, 1.0))
    return tmp_path


@pytest.fixture
def try_out(root: Path) -> Iterator[Callable[..., Trial]]:
    """`try_out(change)` starts a trial in which the shadow's probabilities are changed by `change`."""
    trials: list[Trial] = []

    def start(change: Callable[[Any], Any] = np.array, started: bool = True, **options: Any) -> Trial:
        trials.append(Trial(root, options))
        trials[-1].engine.change = change
        if started:
            trials[-1].shadow.start()
        return trials[-1]

    yield start
    for trial in trials:
        trial.close()


# What is compared


def test_a_shadow_that_agrees_is_counted_so(try_out, pictures, eventually) -> None:
    trial = try_out()
    answers = trial.ask(*pictures.values())
    eventually(lambda: trial.told.outcomes["agree"] == 3)
    assert [answer.model.version for answer in answers] == [1, 1, 1]
    assert trial.told.differences == [0.0, 0.0, 0.0]
    assert trial.told.versions == {2}


def test_a_shadow_that_finds_another_class_disagrees(try_out, pictures, eventually) -> None:
    trial = try_out(lambda found: np.roll(found, 1, axis=1))
    (answer,) = trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["disagree"] == 1)
    live = answer.outputs.probabilities[0]
    assert answer.predictions[0].label == "daisy"
    assert trial.told.differences == pytest.approx([np.abs(np.roll(live, 1) - live).max()])


def test_the_difference_is_the_largest_of_all_classes(try_out, pictures, eventually) -> None:
    trial = try_out(lambda found: found - np.float32([[0.01, 0.0, -0.25]]))
    trial.ask(pictures["roses"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.told.differences == pytest.approx([0.25])


def test_classes_are_compared_by_name(root: Path, try_out, pictures, publish_bundle, eventually) -> None:
    """A shadow may know one more class, and have them in another order."""
    version = publish_bundle(root, labels=("lilies", "tulips", "daisy", "roses"))
    edit_policy(root, "flowers", lambda policy: policy.with_shadow(version, 1.0))
    trial = try_out(lambda found: np.float32([[0.0, 0.0, 1.0, 0.0]]))
    (answer,) = trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.told.differences == pytest.approx([1.0 - answer.predictions[0].probability])


def test_a_shadow_that_fails_fails_alone(try_out, pictures, eventually, caplog) -> None:
    def fail(found: np.ndarray) -> np.ndarray:
        raise OSError("the device is gone")

    trial = try_out(fail)
    trial.ask(pictures["daisy"], pictures["daisy"])
    eventually(lambda: trial.told.outcomes["failed"] == 2)
    assert trial.told.differences == []
    assert [record.getMessage() for record in caplog.records] == [
        "the shadow flowers/2 failed; further failures are only counted"
    ]
    assert "the device is gone" in caplog.text
    trial.engine.change = np.array
    trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)


# Who gets a copy


def test_the_shadow_gets_exactly_its_share_of_the_ids(root: Path, try_out, pictures, eventually) -> None:
    edit_policy(root, "flowers", lambda policy: policy.with_shadow(2, 0.25))
    trial = try_out()
    route = trial.registry.routes()["flowers"]
    names = [f"request-{number}" for number in range(40)]
    expected = sum(route.shadowing(name) is not None for name in names)
    for name in names:
        trial.ask(pictures["daisy"], target=Target(id=name))
        eventually(trial.shadow._copies.empty)
    eventually(lambda: trial.told.outcomes["agree"] == expected)
    assert 0 < expected < 40
    assert trial.told.outcomes.total() == expected


def test_without_a_shadow_nothing_is_copied(root: Path, try_out, pictures) -> None:
    trial = try_out()
    edit_policy(root, "flowers", ServingPolicy.without_shadow)
    trial.registry.refresh()
    trial.ask(pictures["daisy"])
    trial.shadow.close()
    assert trial.told.outcomes == {}


def test_a_version_is_not_its_own_shadow(root: Path, try_out, pictures) -> None:
    """Where all versions answer by number, the shadow does too."""
    trial = try_out()
    edit_policy(root, "flowers", lambda policy: dataclasses.replace(policy, versions="all"))
    trial.registry.refresh()
    (answer,) = trial.ask(pictures["daisy"], target=Target(version=2))
    trial.shadow.close()
    assert answer.model.version == 2
    assert trial.told.outcomes == {}


def test_the_answer_of_a_model_that_has_left_is_not_copied(root: Path, try_out, pictures) -> None:
    trial = try_out(started=False)
    (answer,) = trial.ask(pictures["daisy"])
    edit_policy(root, "flowers", ServingPolicy.unloaded)
    shadow = trial.engine
    trial.registry.refresh()
    trial.shadow.copy(Request(pictures["daisy"]), answer)
    assert trial.shadow._copies.qsize() == 1, "the one from before"
    shadow.close()


# Nobody waits for it


def test_live_answers_flow_while_the_shadow_is_stuck_and_copies_are_dropped(try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.engine.gate.clear()
    trial.ask(pictures["daisy"])
    assert trial.engine.entered.acquire(timeout=PATIENCE_S)
    answers = trial.ask(*[pictures["roses"]] * 30)
    assert [answer.predictions[0].label for answer in answers] == ["roses"] * 30
    kept = shadow_module._MOST_COPIES
    assert trial.told.outcomes == {"dropped": 30 - kept}
    trial.engine.gate.set()
    eventually(lambda: trial.told.outcomes["agree"] == 1 + kept)


def test_copies_are_bounded_in_bytes_too(try_out, make_picture, pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make_picture((255, 0, 0), (64, 64), "BMP")
    monkeypatch.setattr(shadow_module, "_MOST_BYTES", 2 * len(large) + 1)
    trial = try_out(started=False)
    trial.ask(large, large, large, large)
    assert trial.told.outcomes == {"dropped": 2}


def test_bytes_are_free_again_once_a_copy_is_computed(try_out, pictures, eventually, monkeypatch) -> None:
    monkeypatch.setattr(shadow_module, "_MOST_BYTES", len(pictures["daisy"]))
    trial = try_out()
    for turn in range(3):
        trial.ask(pictures["daisy"])
        eventually(lambda turn=turn: trial.told.outcomes["agree"] == turn + 1)
    assert trial.told.outcomes.total() == 3


def test_it_runs_only_where_nobody_else_wants_the_processor(try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.engine.scheduler == os.SCHED_IDLE
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


def test_what_waits_at_the_end_is_let_go(try_out, pictures) -> None:
    trial = try_out()
    trial.engine.gate.clear()
    trial.ask(*[pictures["daisy"]] * 5)
    assert trial.engine.entered.acquire(timeout=PATIENCE_S)
    closing = threading.Thread(target=trial.shadow.close)
    closing.start()
    trial.engine.gate.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert trial.told.outcomes.total() <= 2


def test_one_that_was_never_started_can_be_closed(try_out) -> None:
    try_out(started=False).shadow.close()
