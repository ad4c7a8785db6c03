"""The scheduler for a CPU: a thread per core, each taking a request from bytes to probabilities by itself.

On a CPU a batch of sixteen costs sixteen times as much as one image, so batching only adds latency.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from service.errors import Draining, QueueFull
from service.scheduling.fair_queue import Bounds, FairQueue
from service.scheduling.item import Item
from service.scheduling.scheduler import RunTiming, Work
from service.scheduling.slow_lanes import SlowLanes, SlowLanesOptions

T = TypeVar("T")


class _Lane:
    """Hands one item to a waiting thread."""

    def __init__(self) -> None:
        self._item: Item | None = None
        self._wake = threading.Lock()  # locked while the thread is idle: the cheapest signal between two threads
        self._wake.acquire()

    def give(self, item: Item | None) -> None:
        """None ends the thread."""
        self._item = item
        self._wake.release()

    def take(self) -> Item | None:
        """Wait until something is given."""
        self._wake.acquire()
        item, self._item = self._item, None
        return item


class Lanes:
    """`count` threads; what waits for one is within `bounds`. Without `slow`, they decode everything."""

    def __init__(self, count: int, bounds: Bounds, slow: SlowLanesOptions | None = None) -> None:
        self.count = count
        self._queue = FairQueue(bounds)
        self._running = 0
        self._mean_s = 0.01  # moving average of a piece's running time, for the retry hint
        self._closed = False
        self._lock = threading.Lock()
        self._slow = SlowLanes(slow, self._lock, self._decoded, self._end_idle_lanes)
        self._idle: list[_Lane] = []  # while a lane is idle, the queue is empty
        names = [f"lane-{index}" for index in range(count)]
        self._threads = [threading.Thread(target=self._carry, args=(_Lane(),), name=name) for name in names]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def slow_waiting(self) -> int:
        return self._slow.waiting

    @property
    def running(self) -> int:
        return self._running + self._slow.pending

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads) and self._slow.alive()

    def submit(self, work: Work[T]) -> "asyncio.Future[T]":
        """Hand the work to an idle lane, else queue it. Raises `QueueFull` or `Draining`."""
        item = Item.of(work)
        future: asyncio.Future[T] = item.future
        with self._lock:
            if self._closed:
                raise Draining
            if self._idle:
                self._give(item)
                return future
            pushed_out = self._queue.put(item, self._mean_s / self.count)
        for other, full in pushed_out:
            other.fail(full)
        return future

    def close(self) -> None:
        """Refuse new work, finish what was accepted, end the threads."""
        with self._lock:
            self._closed = True
            self._end_idle_lanes()
        for thread in self._threads:
            thread.join()
        self._slow.close()

    def _give(self, item: Item) -> None:
        """To the lane that became idle last: its core's caches are the warmest."""
        self._queue.begin(item)
        self._running += 1
        self._idle.pop().give(item)

    def _decoded(self, item: Item) -> None:
        """A slow lane has decoded it; the rest is as for others. Called under the lock."""
        if self._idle:
            self._give(item)
        else:
            self._queue.put_back(item)

    def _end_idle_lanes(self) -> None:
        """Where nothing more can come for them. Called under the lock."""
        while self._closed and not self._slow.pending and self._idle:
            self._idle.pop().give(None)

    def _carry(self, lane: _Lane) -> None:
        while (item := self._next(lane)) is not None:
            started = time.monotonic()
            slow = _execute(item, started, partial(self._slow.take, item, self._queue.shared(started)))
            for other, full in self._done(item, time.monotonic() - started, slow):
                other.fail(full)
            del item  # a lane without work holds no image

    def _done(self, item: Item, seconds: float, slow: bool) -> list[tuple[Item, QueueFull]]:
        with self._lock:
            self._queue.end(item, seconds)
            self._running -= 1
            self._mean_s += 0.05 * (seconds - self._mean_s)
            return self._slow.put(item) if slow else []

    def _next(self, lane: _Lane) -> Item | None:
        with self._lock:
            if (item := self._queue.pop()) is not None:
                self._running += 1
                return item
            if self._closed and not self._slow.pending:
                return None
            self._idle.append(lane)
        return lane.take()


def _execute(item: Item, now: float, slow: Callable[[], bool]) -> bool:
    """True where the work is for a slow lane; it has its answer otherwise."""
    if item.expired(now):
        item.expire(now)
        return False
    try:
        if slow():
            return True
        _run(item, now)
    except BaseException as exc:  # any error goes to the caller; the lane goes on
        item.fail(exc)
    return False


def _run(item: Item, now: float) -> None:
    work = item.work
    pixels = work.prepare() if item.pixels is None else item.pixels
    started = time.monotonic()
    if item.left or item.expired(started):  # during decoding
        return item.expire(started)
    outputs = work.engine.run((pixels,), work.evidence)
    timing = RunTiming(item.waited_s(now), time.monotonic() - started, len(pixels))
    return item.succeed(work.finish(outputs, timing))
