"""What comes into the folder comes into service without anybody's doing, and what leaves gives its memory back."""

import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from anther.backoff import Backoff
from bundle.policy import ServingPolicy, edit_policy
from bundle.repository import Bundle, Repository
from service.engines.engine import OnnxEngine, open_on_cpu
from service.errors import DeviceUnavailable, Draining
from service.system import memory
from service.versions.registry import Registry
from service.versions.watcher import Inbox, Throttle, Watcher

PATIENCE_S = 60


class Opener:
    """Opens engines, or raises `error`; while `gate` is cleared it waits."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.opened = 0

    def __call__(self, bundle: Bundle) -> OnnxEngine:
        self.opened += 1
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return open_on_cpu(bundle)


@pytest.fixture
def root(tmp_path: Path, publish_bundle) -> Path:
    root = tmp_path / "models"
    publish_bundle(root)
    return root


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def registry(root: Path, opener: Opener, inbox: Inbox) -> Iterator[Registry]:
    registry = Registry(Repository(root), opener, dispose=inbox.put)
    registry.load_all()
    yield registry
    registry.close()


@pytest.fixture
def watch(registry: Registry, inbox: Inbox) -> Iterator:
    """`watch(interval_s)` starts a watcher of the registry."""
    watchers: list[Watcher] = []

    def start(interval_s: float) -> Watcher:
        watchers.append(Watcher(registry, interval_s, inbox))
        watchers[-1].start()
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()


# By itself


def test_a_new_version_comes_into_service_by_itself(registry, watch, publish_bundle, eventually, root) -> None:
    watch(0.01)
    publish_bundle(root)
    eventually(lambda: registry.find().version == 2)


def test_what_came_between_loading_and_watching_is_taken_over(
    registry, watch, publish_bundle, eventually, root
) -> None:
    publish_bundle(root)
    assert registry.find().version == 1
    watch(0.01)
    eventually(lambda: registry.find().version == 2)


def test_an_edited_policy_is_taken_over(registry, watch, publish_bundle, eventually, root) -> None:
    publish_bundle(root)
    watch(0.01)
    eventually(lambda: registry.find().version == 2)
    edit_policy(root, "flowers", lambda policy: policy.pinned_to(1, 2))
    eventually(lambda: registry.find().version == 1)


def test_a_bad_version_is_not_tried_at_every_rescan(registry, opener, watch, publish_bundle, eventually, root) -> None:
    watch(0.001)
    (root / "flowers" / "2").mkdir()
    eventually(lambda: "flowers/2" in registry.refused)
    publish_bundle(root, "trees")
    eventually(lambda: "trees" in registry.routes())
    assert registry.find("flowers").version == 1
    assert opener.opened == 2, "the first version and the trees: of the bad one no engine was ever opened"


def test_what_came_and_went_during_a_rescan_leaves_nothing_behind(
    registry, watch, eventually, root, monkeypatch
) -> None:
    """The folder is then what it was before that rescan, so by its state alone nothing would call for another."""
    refresh, seen = registry.refresh, []

    def crossed_by_a_short_life(again: bool = False, pause: Callable[[], None] = lambda: None) -> bool:
        if not seen:
            (root / "flowers" / "2").mkdir()
        changed = refresh(again, pause)
        if not seen:
            seen.append(dict(registry.refused))
            (root / "flowers" / "2").rmdir()
        return changed

    monkeypatch.setattr(registry, "refresh", crossed_by_a_short_life)
    watch(0.001)
    eventually(lambda: seen and not registry.refused)
    assert list(seen[0]) == ["flowers/2"]


def test_requests_are_answered_while_a_version_is_loaded(registry, opener, watch, publish_bundle, root) -> None:
    watcher = watch(0)
    publish_bundle(root)
    opener.gate.clear()
    opener.entered.clear()
    done = watcher.reconcile()
    assert opener.entered.wait(PATIENCE_S)
    assert registry.find().version == 1
    opener.gate.set()
    done.result(PATIENCE_S)
    assert registry.find().version == 2


# When the folder cannot be rescanned


def test_an_unreadable_folder_is_told_once_and_tried_again(
    registry, watch, eventually, publish_bundle, root, caplog
) -> None:
    caplog.set_level(logging.ERROR)
    away = root.rename(root.with_name("away"))
    watcher = watch(0.001)
    eventually(lambda: bool(caplog.records))
    eventually(lambda: watcher._backoff._next_s > 0.01)
    assert registry.find().version == 1
    publish_bundle(away)
    away.rename(root)
    eventually(lambda: registry.find().version == 2)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "the models cannot be rescanned, so they stay as they are" in messages[0]
    assert not caplog.records[0].exc_info
    eventually(lambda: watcher._backoff == Backoff(0.002, 60.0))


def test_what_nobody_foresaw_is_told_with_its_trace(registry, watch, publish_bundle, eventually, root, caplog) -> None:
    class Unforeseen(Repository):
        def models(self) -> list[str]:
            raise ZeroDivisionError("unforeseen")

    registry.repository = Unforeseen(root)
    watch(0.001)
    eventually(lambda: any(record.exc_info for record in caplog.records))
    assert registry.find().version == 1
    publish_bundle(root, "trees")
    registry.repository = Repository(root)
    eventually(lambda: "trees" in registry.routes())


# By command


def test_without_an_interval_it_looks_only_when_told_to(registry, watch, publish_bundle, root) -> None:
    watcher = watch(0)
    publish_bundle(root)
    assert registry.find().version == 1
    watcher.reconcile().result(PATIENCE_S)
    assert registry.find().version == 2


def test_a_command_tries_refused_versions_again(registry, opener, watch, publish_bundle, root) -> None:
    """The engine failed for a reason outside the version's files, such as a device without room."""
    watcher = watch(0)
    publish_bundle(root)
    opener.error = RuntimeError("no room on the device")
    watcher.reconcile().result(PATIENCE_S)
    assert "no room on the device" in registry.refused["flowers/2"]
    opener.error = None
    watcher.reconcile().result(PATIENCE_S)
    assert (registry.find().version, registry.refused) == (2, {})


def test_a_command_is_told_what_went_wrong(registry, opener, watch, publish_bundle, root) -> None:
    watcher = watch(0)
    publish_bundle(root)
    opener.error = DeviceUnavailable("cuda", "nothing")
    with pytest.raises(DeviceUnavailable):
        watcher.reconcile().result(PATIENCE_S)
    assert registry.find().version == 1
    opener.error = None
    watcher.reconcile().result(PATIENCE_S)
    assert registry.find().version == 2


def test_a_command_that_was_cancelled_is_passed_over(registry, opener, watch, publish_bundle, root) -> None:
    watcher = watch(0)
    publish_bundle(root)
    opener.gate.clear()
    first = watcher.reconcile()
    second, third = watcher.reconcile(), watcher.reconcile()
    assert second.cancel()
    opener.gate.set()
    third.result(PATIENCE_S)
    assert first.done()
    with pytest.raises(CancelledError):
        second.result()


def test_a_command_that_takes_too_long_goes_on_without_who_gave_it(
    registry, opener, watch, publish_bundle, root
) -> None:
    watcher = watch(0)
    publish_bundle(root)
    opener.gate.clear()
    with pytest.raises(TimeoutError):
        watcher.reconcile().result(0.01)
    opener.gate.set()
    watcher.reconcile().result(PATIENCE_S)
    assert registry.find().version == 2


def test_commands_and_looks_do_not_get_in_each_others_way(registry, watch, publish_bundle, eventually, root) -> None:
    watcher = watch(0.001)
    commands = [watcher.reconcile() for _ in range(20)]
    publish_bundle(root)
    eventually(lambda: registry.find().version == 2)
    assert [command.result(PATIENCE_S) for command in commands] == [None] * 20


# The end


def test_it_finishes_what_it_was_asked_for_and_takes_nothing_more(
    registry, opener, watch, publish_bundle, root
) -> None:
    watcher = watch(0)
    publish_bundle(root)
    done = watcher.reconcile()
    watcher.close()
    assert done.done()
    assert registry.find().version == 2
    with pytest.raises(Draining):
        watcher.reconcile()


def test_a_watcher_that_was_never_started_can_be_closed(registry) -> None:
    Watcher(registry, 1.0).close()


# Memory


def test_a_retired_version_is_freed_on_this_thread_and_its_memory_handed_back(
    registry, watch, publish_bundle, eventually, root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as nobody works with it any more, and not before."""
    handed_back: list[str] = []
    monkeypatch.setattr(memory, "give_back", lambda: handed_back.append(threading.current_thread().name))
    watcher = watch(0)
    in_flight = registry.find()
    freed_by: list[str] = []
    session = weakref.ref(in_flight.engine._session, lambda _: freed_by.append(threading.current_thread().name))
    publish_bundle(root)
    watcher.reconcile().result(PATIENCE_S)
    watcher.reconcile().result(PATIENCE_S)
    assert session() is not None
    eventually(lambda: len(handed_back) == 2)
    handed_back.clear()
    del in_flight
    eventually(lambda: handed_back == ["models"])
    assert (session(), freed_by) == (None, ["models"])


def test_a_deleted_model_is_freed(registry, watch, eventually, root, publish_bundle) -> None:
    publish_bundle(root, "trees")
    watcher = watch(0)
    watcher.reconcile().result(PATIENCE_S)
    session = weakref.ref(registry.find("flowers").engine._session)
    shutil.rmtree(root / "flowers")
    watcher.reconcile().result(PATIENCE_S)
    eventually(lambda: session() is None)


def test_an_unloaded_model_is_freed_also_after_a_failure(
    registry, opener, watch, eventually, root, publish_bundle
) -> None:
    """An error's trace must not keep the models that it came by."""
    watcher = watch(0)
    publish_bundle(root)
    opener.error = DeviceUnavailable("cuda", "nothing")
    failure = watcher.reconcile()
    assert isinstance(failure.exception(PATIENCE_S), DeviceUnavailable)
    del failure
    opener.error = None
    session = weakref.ref(registry.find("flowers").engine._session)
    edit_policy(root, "flowers", ServingPolicy.unloaded)
    watcher.reconcile().result(PATIENCE_S)
    eventually(lambda: session() is None)


# Pauses while a version is loaded


class Clock:
    """Processor time that a test lets pass, and the rests that were taken."""

    def __init__(self) -> None:
        self.computed = 0.0
        self.rests: list[float] = []
        self.throttle = Throttle(3.0, self.rests.append, lambda: self.computed)

    def work(self, seconds: float) -> None:
        self.computed += seconds
        self.throttle()


def test_a_rest_is_three_times_as_long_as_the_work_before_it() -> None:
    clock = Clock()
    for seconds in (0.01, 0.0, 0.03):
        clock.work(seconds)
    assert clock.rests == pytest.approx([0.03, 0.0, 0.09])


def test_no_rest_is_longer_than_a_fifth_of_a_second() -> None:
    clock = Clock()
    clock.work(60.0)
    assert clock.rests == [0.2]


def test_only_what_the_thread_itself_computes_counts() -> None:
    rests: list[float] = []
    throttle = Throttle(1.0, rests.append)
    throttle()
    time.sleep(0.05)
    throttle()
    ends = time.thread_time() + 0.02
    while time.thread_time() < ends:
        pass
    throttle()
    assert rests[1] < 0.02 <= rests[2]
