"""A shadow computes copies and is compared; whoever asks gets the live answer, no later than without it."""

import asyncio
import dataclasses
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.policy import ServingPolicy, edit_policy
from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service.core import shadow as shadow_module
from service.core.answers import Answer, PixelsAnswer
from service.core.classifier import Classifier
from service.core.requests import ImageRequest, PixelsRequest, Target
from service.core.shadow import Shadow
from service.core.shadow_worker import ShadowWorkerFailed
from service.engines.engine import open_on_cpu
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.versions.loader import LiveModel
from service.versions.registry import Registry

PATIENCE_S = 60


class FakeComputer:
    """Computes as the real one does, in this process, behind a gate; `change` spoils its answers."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.change: Callable[[np.ndarray], np.ndarray] = np.array
        self.rests = 0
        self.closed = False

    def compute(self, bundle: Bundle, picture: bytes | np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.closed:
            raise ShadowWorkerFailed("its process ended")
        pixels = bundle.manifest.preprocessing(picture) if isinstance(picture, bytes) else picture
        return self.change(open_on_cpu(bundle).run((pixels[np.newaxis],)).probabilities[0])

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.closed = True
        self.gate.set()


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
    """A model whose shadow computes everything, and a classifier to ask."""

    def __init__(self, root: Path) -> None:
        self.registry = Registry(Repository(root), open_on_cpu)
        self.registry.load_all()
        self.computer, self.told = FakeComputer(), Told()
        self.core_to_spare = True
        self.shadow = Shadow(self.registry, self.computer, self.told, lambda: self.core_to_spare)
        self.lanes = Lanes(1, Bounds(100, 2**30))
        self.classifier = Classifier(self.registry, self.lanes, Limits(), copy=self.shadow.copy)

    def ask(self, *pictures: bytes, target: Target | None = None) -> list[Answer]:
        target = target or Target()
        model = self.classifier.find(target)

        async def ask() -> list[Answer]:
            return [await self.classifier.classify(model, ImageRequest(each, id=target.id)) for each in pictures]

        return asyncio.run(asyncio.wait_for(ask(), PATIENCE_S))

    def infer(self, pixels: np.ndarray) -> PixelsAnswer:
        answer = self.classifier.infer(self.registry.find(), PixelsRequest(pixels))
        return asyncio.run(asyncio.wait_for(answer, PATIENCE_S))

    def close(self) -> None:
        self.lanes.close()
        self.shadow.close()
        self.registry.close()


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    """Version 1 is stable, version 2 the shadow of every request."""
    publish_bundle(tmp_path)
    publish_bundle(tmp_path)
    edit_policy(tmp_path, "flowers", lambda policy: policy.pinned_to(1, 2).with_shadow(2, 1.0))
    return tmp_path


@pytest.fixture
def try_out(root: Path) -> Iterator[Callable[..., Trial]]:
    """`try_out(change)` starts a trial in which the shadow's probabilities [C] are changed by `change`."""
    trials: list[Trial] = []

    def start(change: Callable[[Any], Any] = np.array, started: bool = True) -> Trial:
        trials.append(Trial(root))
        trials[-1].computer.change = change
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
    trial = try_out(lambda found: np.roll(found, 1))
    (answer,) = trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["disagree"] == 1)
    live = answer.outputs.probabilities[0]
    assert answer.predictions[0].label == "daisy"
    assert trial.told.differences == pytest.approx([np.abs(np.roll(live, 1) - live).max()])


def test_the_difference_is_the_largest_of_all_classes(try_out, pictures, eventually) -> None:
    trial = try_out(lambda found: found - np.float32([0.01, 0.0, -0.25]))
    trial.ask(pictures["roses"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.told.differences == pytest.approx([0.25])


def test_classes_are_compared_by_name(root: Path, try_out, pictures, publish_bundle, eventually) -> None:
    """A shadow may know one more class, and have them in another order."""
    version = publish_bundle(root, labels=("lilies", "tulips", "daisy", "roses"))
    edit_policy(root, "flowers", lambda policy: policy.with_shadow(version, 1.0))
    trial = try_out(lambda found: np.float32([0.0, 0.0, 1.0, 0.0]))
    (answer,) = trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.told.differences == pytest.approx([1.0 - answer.predictions[0].probability])


def test_a_shadow_that_fails_fails_alone(try_out, pictures, eventually, caplog) -> None:
    def fail(found: np.ndarray) -> np.ndarray:
        raise ShadowWorkerFailed("the picture is no picture")

    trial = try_out(fail)
    trial.ask(pictures["daisy"], pictures["daisy"])
    eventually(lambda: trial.told.outcomes["failed"] == 2)
    assert trial.told.differences == []
    assert [record.getMessage() for record in caplog.records] == [
        "the shadow flowers/2 failed: the picture is no picture; further failures are only counted"
    ]
    trial.computer.change = np.array
    trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)


def test_an_answer_that_nobody_foresaw_does_not_end_the_shadow(try_out, pictures, eventually, caplog) -> None:
    trial = try_out(lambda found: found[:1])  # fewer probabilities than it has classes
    trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["failed"] == 1)
    assert caplog.records[0].exc_info is not None
    trial.computer.change = np.array
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


def test_each_row_of_pixels_is_compared(try_out, eventually) -> None:
    trial = try_out()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    answer = trial.infer(pixels)
    assert len(answer.outputs.probabilities) == 3
    eventually(lambda: trial.told.outcomes["agree"] == 3)
    assert trial.told.differences == [0.0, 0.0, 0.0]


def test_a_row_that_waits_does_not_hold_the_others(try_out, monkeypatch: pytest.MonkeyPatch) -> None:
    row = 32 * 32 * 3
    monkeypatch.setattr(shadow_module, "_MAX_BYTES", 2 * row)
    trial = try_out(started=False)
    trial.infer(np.zeros((5, 32, 32, 3), np.uint8))
    assert trial.told.outcomes == {"dropped": 3}
    waiting = [trial.shadow._copies.get_nowait() for _ in range(2)]
    assert [copy.size for copy in waiting] == [row, row]
    assert all(copy.image.base is None for copy in waiting)


def test_pixels_of_another_size_tell_nothing_of_the_shadow(tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    publish_bundle(tmp_path, crop=16, resize=20)
    edit_policy(tmp_path, "flowers", lambda policy: policy.pinned_to(1, 2).with_shadow(2, 1.0))
    trial = Trial(tmp_path)
    try:
        trial.infer(np.zeros((1, 32, 32, 3), np.uint8))
        assert trial.shadow._copies.empty()
        assert trial.told.outcomes == {}
    finally:
        trial.close()


def test_what_is_explained_is_compared_too(try_out, pictures, eventually) -> None:
    trial = try_out()
    explanation = trial.classifier.explain(trial.registry.find(), ImageRequest(pictures["daisy"]))
    asyncio.run(asyncio.wait_for(explanation, PATIENCE_S))
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    assert trial.told.differences == [0.0]


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
    trial.registry.refresh()
    trial.shadow.copy(ImageRequest(pictures["daisy"]), answer)
    assert trial.shadow._copies.qsize() == 1, "the one from before"


# Nobody waits for it


def test_live_answers_flow_while_the_shadow_is_stuck_and_copies_are_dropped(try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.computer.gate.clear()
    trial.ask(pictures["daisy"])
    assert trial.computer.entered.acquire(timeout=PATIENCE_S)
    answers = trial.ask(*[pictures["roses"]] * 30)
    assert [answer.predictions[0].label for answer in answers] == ["roses"] * 30
    kept = shadow_module._MAX_COPIES
    assert trial.told.outcomes == {"dropped": 30 - kept}
    trial.computer.gate.set()
    eventually(lambda: trial.told.outcomes["agree"] == 1 + kept)


def test_it_computes_only_while_a_core_is_to_spare(try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.core_to_spare = False
    trial.ask(pictures["daisy"])
    eventually(trial.shadow._copies.empty)
    assert not trial.computer.entered.acquire(timeout=0.05)
    trial.core_to_spare = True
    assert trial.computer.entered.acquire(timeout=PATIENCE_S)
    eventually(lambda: trial.told.outcomes["agree"] == 1)


def test_copies_are_bounded_in_bytes_too(try_out, make_picture, pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make_picture((255, 0, 0), (64, 64), "BMP")
    monkeypatch.setattr(shadow_module, "_MAX_BYTES", 2 * len(large) + 1)
    trial = try_out(started=False)
    trial.ask(large, large, large, large)
    assert trial.told.outcomes == {"dropped": 2}


def test_bytes_are_free_again_once_a_copy_is_computed(try_out, pictures, eventually, monkeypatch) -> None:
    monkeypatch.setattr(shadow_module, "_MAX_BYTES", len(pictures["daisy"]))
    trial = try_out()
    for turn in range(3):
        trial.ask(pictures["daisy"])
        eventually(lambda turn=turn: trial.told.outcomes["agree"] == turn + 1)
    assert trial.told.outcomes.total() == 3


def test_without_copies_its_process_is_sent_away(try_out, eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "_QUIET_S", 0.001)
    trial = try_out()
    eventually(lambda: trial.computer.rests > 0)


def test_a_shadow_that_waits_holds_no_model(root: Path, try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.ask(pictures["daisy"])
    eventually(lambda: trial.told.outcomes["agree"] == 1)
    session = weakref.ref(trial.registry.routes()["flowers"].shadow.model.engine._session)
    edit_policy(root, "flowers", ServingPolicy.without_shadow)
    trial.registry.refresh()
    eventually(lambda: session() is None)


# The end


def test_what_waits_at_the_end_is_let_go(try_out, pictures) -> None:
    trial = try_out()
    trial.computer.gate.clear()
    trial.ask(*[pictures["daisy"]] * 5)
    assert trial.computer.entered.acquire(timeout=PATIENCE_S)
    trial.shadow.close()
    assert trial.told.outcomes == {"failed": 1}
    assert trial.computer.rests == 1


def test_the_end_does_not_wait_for_a_core_to_spare(try_out, pictures, eventually) -> None:
    trial = try_out()
    trial.core_to_spare = False
    trial.ask(pictures["daisy"])
    eventually(trial.shadow._copies.empty)
    trial.shadow.close()


def test_one_that_was_never_started_can_be_closed(try_out) -> None:
    try_out(started=False).shadow.close()
