import os
import signal
import threading

import pytest

from training.progress import Silent
from training.publishing import watch
from training.publishing.watch import Plan, Watch


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


class Fake:
    """An attempt that ends with `code` at once, or when it is told to where `code` is None."""

    def __init__(self, code, during):
        self.exitcode, self._during = code, during
        self._told = threading.Event()

    def join(self):
        self._during()
        if self.exitcode is None:
            assert self._told.wait(60)
            self.exitcode = 143

    def terminate(self):
        self._told.set()


class Attempts:
    """Counts what was started; `during` happens in the middle of an attempt."""

    def __init__(self, code=0, during=lambda: None):
        self.code, self.during, self.count = code, during, 0

    def __call__(self):
        self.count += 1
        return Fake(self.code, self.during)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "photos"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "runs" / "colours"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def add(data, draw):
    """`add(n)` puts n photos into the folder that were never there."""
    numbers = iter(range(1000))
    return lambda count: [draw(data, "red", next(numbers)) for _ in range(count)]


@pytest.fixture
def watch_of(data, folder):
    """`watch_of(attempts)` is a watch that begins with 3 new photos and waits for nothing; `rescan()` is one scan."""

    def make(attempts, settle_s=0.0):
        reporter = Said()
        made = Watch(data, folder, attempts, Plan(3, 60.0, settle_s), reporter)
        made.said = reporter.lines
        return made

    return make


def test_it_begins_when_enough_new_photos_are_there(watch_of, add):
    attempts = Attempts()
    watching = watch_of(attempts)
    for photos, expected in [(2, 0), (1, 1), (0, 1), (2, 1), (1, 2)]:
        add(photos)
        watching.rescan()
        assert attempts.count == expected


def test_what_is_left_after_an_attempt_counts_for_the_next(watch_of, add):
    """Photos that arrive while one is running were not in it."""
    attempts = Attempts(during=lambda: attempts.count == 1 and add(2))
    watching = watch_of(attempts)
    add(3)
    assert watching.rescan() == 0, "it scans again at once"
    watching.rescan()
    assert attempts.count == 1
    add(1)
    watching.rescan()
    assert attempts.count == 2


def test_the_same_photos_are_not_tried_again_after_a_refusal(watch_of, add, data):
    attempts = Attempts(code=1)
    watching = watch_of(attempts)
    add(3)
    for path in [None, *data.rglob("*.png")]:
        if path is not None:
            path.rename(path.with_name(f"renamed-{path.name}"))
        watching.rescan()
    assert attempts.count == 1
    assert any("nothing was published" in line for line in watching.said)


def test_another_watch_knows_what_was_tried(watch_of, add):
    attempts = Attempts(code=1)
    add(3)
    watch_of(attempts).rescan()
    add(2)
    watch_of(attempts).rescan()
    assert attempts.count == 1
    add(1)
    watch_of(attempts).rescan()
    assert attempts.count == 2


def test_photos_of_a_run_that_somebody_began_by_hand_are_not_new(finished, photos, folder, draw):
    attempts = Attempts()
    plan = Plan(1, 60.0, 0.0)
    Watch(photos, finished.run.path.parent, attempts, plan, Silent()).rescan()
    assert attempts.count == 0
    Watch(photos, folder, attempts, plan, Silent()).rescan()
    assert attempts.count == 1


def test_it_does_not_begin_while_photos_are_arriving(watch_of, add):
    attempts = Attempts()
    watching = watch_of(attempts, settle_s=30.0)
    add(3)
    assert 0 < watching.rescan() <= 30
    assert attempts.count == 0
    assert 0 < watching.rescan() <= 30, "nothing has changed, but not for long enough"
    assert attempts.count == 0


def test_an_unfinished_run_is_gone_on_with_first(watch_of, folder):
    (folder / "20260101T000000Z").mkdir()
    (folder / "20260101T000000Z" / "retrain.json").write_text("{}")
    attempts = Attempts()
    watching = watch_of(attempts)
    attempts.during = watching.stop
    watching.run()
    assert attempts.count == 1


def test_stopped_while_an_attempt_runs_it_ends_that_and_does_not_count_it(watch_of, add):
    """What it was about must be tried again: its run goes on, or was never begun."""
    add(3)
    attempts = Attempts(code=None)
    watching = watch_of(attempts)
    attempts.during = watching.stop
    watching.run()
    assert attempts.count == 1
    again = Attempts()
    watch_of(again).rescan()
    assert again.count == 1


def test_stopped_while_an_attempt_starts_it_ends_that_too(watch_of, add):
    add(3)
    started = []

    def start():
        watching.stop()
        started.append(Fake(None, lambda: None))
        return started[-1]

    watching = watch_of(start)
    watching.run()
    assert started[0].exitcode == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_watch_and_the_handlers_are_as_before(data, folder, add, number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    add(3)
    reporter = Said()
    attempts = Attempts(code=None, during=lambda: os.kill(os.getpid(), number))
    watch.watch(data, folder, attempts, Plan(3, 60.0, 0.0), reporter)
    assert attempts.count == 1
    assert reporter.lines[-1] == "watching   ended"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
