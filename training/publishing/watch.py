"""`anther retrain --watch`: start a retrain whenever enough new photos have arrived and no more are arriving.

The photos of an attempt are not tried again, whether it published, was refused or failed; a new attempt needs other
photos. A watch that ends during a training leaves a run that the next watch continues.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from anther.files import replace
from training.progress import Reporter
from training.publishing import unfinished
from training.publishing.arrivals import Arrivals, Snapshot, key
from training.runs.run import every

_SEEN = ".watched"  # 32 bytes for each photo that an attempt has seen
_KEY_BYTES = 32


@dataclass(frozen=True)
class Plan:
    """When to begin."""

    min_new: int  # photos, by class and content
    every_s: float  # between two scans
    settle_s: float  # without a change before the photos count


class Process(Protocol):
    """An attempt that runs."""

    @property
    def exitcode(self) -> int | None: ...

    def join(self) -> None: ...

    def terminate(self) -> None: ...


class Watch:
    """Scans `data` and starts attempts, one after the other. `folder` holds the model's runs."""

    def __init__(self, data: Path, folder: Path, start: Callable[[], Process], plan: Plan, reporter: Reporter) -> None:
        self._arrivals, self._folder, self._start, self._plan, self._reporter = (
            Arrivals(data), folder, start, plan, reporter,
        )  # fmt: skip
        self._stop = threading.Event()
        self._running: Process | None = None
        self._last: Snapshot | None = None
        self._changed = 0.0  # when the snapshot was found to be another one
        self._weighed = False  # whether this snapshot was found to be too little already
        self._known = _attempted(folder)

    def run(self) -> None:
        """Until `stop` is called."""
        if any(unfinished.begun(self._folder)):
            self._reporter.say("watching   an unfinished run is there; going on with it")
            self._attempt(self._arrivals.snapshot())
        self._reporter.say(f"watching   {self._plan.min_new} new photos begin a retrain; Ctrl-C ends")
        while not self._stop.is_set():
            self._stop.wait(self.rescan())

    def stop(self) -> None:
        """Stop soon. A running attempt is terminated, and a later watch continues it."""
        self._stop.set()
        if self._running is not None:
            self._running.terminate()

    def rescan(self) -> float:
        """Begin if it is time. Returns the seconds until the next scan."""
        now, snapshot = time.monotonic(), self._arrivals.snapshot()
        if snapshot != self._last:
            self._last, self._changed, self._weighed = snapshot, now, False
        settles = self._changed + self._plan.settle_s - now
        if settles > 0:
            return min(settles, self._plan.every_s)
        if not self._weighed:
            self._weighed = True
            if self._arrivals.new(snapshot, self._known, self._plan.min_new) >= self._plan.min_new:
                self._reporter.say(f"watching   at least {self._plan.min_new} new photos; retraining")
                self._attempt(snapshot)
                return 0.0
        return self._plan.every_s

    def _attempt(self, snapshot: Snapshot) -> None:
        seen = self._arrivals.keys(snapshot)
        self._running = self._start()
        if self._stop.is_set():  # it came while the process was starting
            self._running.terminate()
        self._running.join()
        code, self._running = self._running.exitcode, None
        if self._stop.is_set():
            return
        self._known |= seen
        replace(self._folder / _SEEN, b"".join(sorted(self._known)), make_folder=True)
        if code != 0:
            self._reporter.say("watching   nothing was published; only other photos are tried again")


def watch(data: Path, folder: Path, start: Callable[[], Process], plan: Plan, reporter: Reporter) -> None:
    """Watch until SIGTERM or Ctrl-C; for the main thread."""
    watching = Watch(data, folder, start, plan, reporter)
    with _ended_by_signals(watching.stop):
        watching.run()
    reporter.say("watching   ended")


def _attempted(folder: Path) -> set[bytes]:
    """The photos that earlier watches tried, and those of the newest run, which may have been started by hand."""
    path = folder / _SEEN
    stored = path.read_bytes() if path.exists() else b""
    known = {stored[start : start + _KEY_BYTES] for start in range(0, len(stored), _KEY_BYTES)}
    newest = next((run.split() for run in every(folder) if run.has("split.json")), None)
    return known | {key(photo.label, photo.digest) for photo in (newest.photos if newest is not None else ())}


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        stop()

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
