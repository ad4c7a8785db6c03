"""Where images that take long to decode wait and are decoded, so that they hold neither a lane nor the interpreter.

A fair queue of their own, and threads that each own a process (`service.scheduling.decoder`). Everything starts with
the first such image.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bundle.preprocessing import Preprocessing
from service.errors import QueueFull
from service.scheduling.decoder import End, NobodyWaits, Over
from service.scheduling.fair_queue import Bounds, FairQueue
from service.scheduling.item import Item
from service.scheduling.scheduler import Prepared

_IDLE_S = 30.0  # without images, a process ends
_SHARED = 5  # a lane is not taken away from its image, so while others ask it takes on none that lasts


class Decoder(Protocol):
    """`service.scheduling.decoder.DecodeProcess`."""

    def prepare(self, image: bytes, preprocessing: Preprocessing, over: Callable[[], Over | None]) -> Prepared: ...

    def end(self, reason: End) -> None: ...


@dataclass(frozen=True, slots=True)
class SlowLanesOptions:
    """Work that is estimated to take `threshold_s` of a core or more goes to one of `count` processes.

    A fifth of that is enough where several callers have asked lately.
    """

    threshold_s: float
    count: int
    bounds: Bounds
    open_decoder: Callable[[], Decoder]


class SlowLanes:
    """Part of a scheduler, whose `lock` it shares. Both callbacks are called under the lock.

    `decoded` takes work whose pixels are ready. `emptied` hears that no work waits or is being decoded.
    """

    def __init__(
        self,
        options: SlowLanesOptions | None,
        lock: threading.Lock,
        decoded: Callable[[Item], None],
        emptied: Callable[[], None],
    ) -> None:
        self._options = options
        self._threshold_s = math.inf if options is None else options.threshold_s
        self._queue = FairQueue(Bounds(0, 0) if options is None else options.bounds)
        self._lock, self._to_decode = lock, threading.Condition(lock)
        self._decoded, self._emptied = decoded, emptied
        self._threads: list[threading.Thread] = []
        self._free = self._busy = 0  # threads
        self._mean_s = 0.2  # moving average of an image, for the retry hint
        self._closed = False

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def pending(self) -> int:
        """Work that waits or is being decoded."""
        return len(self._queue) + self._busy

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def take(self, item: Item, shared: bool) -> bool:
        """Whether the work is slow, where several callers share the scheduler or one has it alone.

        Raises as `Work.estimate` does.
        """
        if self._threshold_s == math.inf or item.pixels is not None:
            return False
        return item.work.estimate() >= (self._threshold_s / _SHARED if shared else self._threshold_s)

    def put(self, item: Item) -> list[tuple[Item, QueueFull]]:
        """Called under the lock. Returns what has no place here, each with the error for its caller."""
        assert self._options is not None
        try:
            pushed_out = self._queue.put(item, self._mean_s / self._options.count)
        except QueueFull as full:
            return [(item, full)]
        if len(self._queue) > self._free and len(self._threads) < self._options.count:
            thread = threading.Thread(target=self._carry, name=f"slow-lane-{len(self._threads)}")
            self._threads.append(thread)
            thread.start()
        self._to_decode.notify()
        return pushed_out

    def close(self) -> None:
        """Finish what was accepted, end the threads and their processes."""
        with self._lock:
            self._closed = True
            self._to_decode.notify_all()
        for thread in self._threads:
            thread.join()

    def _carry(self) -> None:
        assert self._options is not None
        decoder = self._options.open_decoder()
        while (item := self._next()) is not None or not self._closed:
            if item is None:
                decoder.end("idle")
                continue
            started = time.monotonic()
            decoded = _decode(item, decoder)
            self._done(item, decoded, time.monotonic() - started)
            del item  # a thread without work holds no image
        decoder.end("closed")

    def _next(self) -> Item | None:
        """None where nothing came for a while, or nothing comes any more."""
        with self._lock:
            while (item := self._queue.pop()) is None:
                if not self._busy:
                    self._emptied()
                if self._closed:
                    return None
                self._free += 1
                came = self._to_decode.wait(_IDLE_S)
                self._free -= 1
                if not came:
                    return None
            self._busy += 1
            return item

    def _done(self, item: Item, decoded: bool, seconds: float) -> None:
        item.worked_s += seconds
        with self._lock:
            self._queue.end(item, seconds)
            self._mean_s += 0.1 * (seconds - self._mean_s)
            self._busy -= 1
            if decoded:
                self._decoded(item)
            if not self.pending:
                self._emptied()


def _decode(item: Item, decoder: Decoder) -> bool:
    """False where the item has its answer already."""
    now = time.monotonic()
    if item.left or item.expired(now):
        item.expire(now)
        return False
    try:
        item.pixels = item.work.prepare_by(partial(decoder.prepare, over=partial(_over, item)))
    except NobodyWaits:
        item.expire(time.monotonic())
    except BaseException as exc:  # any error goes to the caller; the thread goes on
        item.fail(exc)
    return item.pixels is not None


def _over(item: Item) -> Over | None:
    if item.left:
        return "left"
    return "deadline" if item.expired(time.monotonic()) else None
