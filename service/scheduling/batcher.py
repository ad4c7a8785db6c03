"""The scheduler for a GPU: many threads decode, a few form batches and run them.

A GPU takes little longer for a batch of 64 than for one image, and one core decodes far less than a GPU infers.
"""

import asyncio
import dataclasses
import math
import threading
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TypeVar

from bundle.preprocessing import Pixels
from service.engines.engine import Engine, Outputs
from service.errors import Draining, QueueFull
from service.scheduling.fair_queue import Bounds, FairQueue
from service.scheduling.item import Item
from service.scheduling.ready import Batch, Part, Ready
from service.scheduling.scheduler import RunTiming, Work
from service.scheduling.slow_lanes import SlowLanes, SlowLanesOptions

T = TypeVar("T")

OnBatch = Callable[[Engine, int], object]
"""Called on a runner's thread before each batch, with its number of rows. What it returns comes back in `RunTiming`."""

_RUNNERS = 2  # while one batch runs, the other runner hands out the last results and assembles the next batch


class Batcher:
    """`decoders` threads prepare work until `ready_rows` rows or more wait; a batch waits `max_wait_s` for more rows.

    What waits to be prepared is within `bounds`. Decoders take no more work while the pieces between queue and answer
    hold as many bytes as may wait.
    """

    def __init__(
        self,
        decoders: int,
        bounds: Bounds,
        max_wait_s: float,
        ready_rows: int,
        on_batch: OnBatch | None = None,
        slow: SlowLanesOptions | None = None,
    ) -> None:
        self.decoders = decoders
        self._queue = FairQueue(bounds)
        self._ready = Ready(max_wait_s)
        self._ready_rows, self._max_bytes = ready_rows, bounds.bytes
        self._on_batch = on_batch
        self._decoding = self._in_engine = self._running = self._bytes = 0
        self._decode_s, self._row_s = 0.01, 0.0001  # moving averages for a piece and for a row, for the retry hint
        self._closed = False
        self._lock = threading.Lock()
        self._slow = SlowLanes(slow, self._lock, self._decoded_slowly, self._wake_runners)
        self._to_decode, self._to_run = threading.Condition(self._lock), threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._decode, name=f"decoder-{index}") for index in range(decoders)]
        self._threads += [threading.Thread(target=self._run, name=f"runner-{index}") for index in range(_RUNNERS)]
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
        """Queue the work for a decoder. Raises `QueueFull` or `Draining`."""
        item = Item.of(work)
        future: asyncio.Future[T] = item.future
        with self._lock:
            if self._closed:
                raise Draining
            pushed_out = self._queue.put(item, max(self._decode_s / self.decoders, self._row_s))
            self._to_decode.notify()
        for other, full in pushed_out:
            other.fail(full)
        return future

    def close(self) -> None:
        """Refuse new work, finish what was accepted, end the threads."""
        with self._lock:
            self._closed = True
            self._to_decode.notify_all()
            self._to_run.notify_all()
        for thread in self._threads:
            thread.join()
        self._slow.close()

    # Decoders

    def _decode(self) -> None:
        while (item := self._next_item()) is not None:
            started = time.monotonic()
            part = _prepared(item, started, partial(self._slow.take, item, self._queue.shared(started)))
            for other, full in self._decoded(item, part, time.monotonic() - started):
                other.fail(full)
            del item, part  # a decoder without work holds no image

    def _next_item(self) -> Item | None:
        with self._lock:
            while True:
                if self._has_room and (item := self._queue.pop()) is not None:
                    self._decoding += 1
                    self._running += 1
                    self._bytes += item.size
                    return item
                if self._quiet:  # no more rows come: a batch that waits for them leaves now
                    self._to_run.notify()
                if self._closed and not len(self._queue):
                    self._to_run.notify_all()
                    return None
                self._to_decode.wait()

    def _decoded(self, item: Item, part: "Part | _NoPart", seconds: float) -> list[tuple[Item, QueueFull]]:
        with self._lock:
            self._decoding -= 1
            self._decode_s += 0.05 * (seconds - self._decode_s)
            if isinstance(part, Part):
                self._offer(part)
                return []
            self._ended(item, seconds)
            return self._slow.put(item) if part is _NoPart.SLOW else []

    def _decoded_slowly(self, item: Item) -> None:
        """A slow lane has decoded it; the rest is as for others. Called under the lock."""
        self._begun(item)
        assert item.pixels is not None
        self._offer(_part(item, item.pixels, time.monotonic(), 0.0))
        if self._quiet:
            self._to_run.notify()

    def _offer(self, part: Part) -> None:
        due = self._ready.due()
        self._ready.put(part)
        if self._ready.due() < due:
            self._to_run.notify()

    def _wake_runners(self) -> None:
        """The last of them may have waited for a slow lane. Called under the lock."""
        self._to_run.notify_all()

    # Runners

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            seconds = self._settle(batch)
            self._ran(batch, seconds)
            del batch  # a runner without work holds no image

    def _next_batch(self) -> Batch | None:
        with self._lock:
            while True:
                now = time.monotonic()
                if (batch := self._ready.take(now, self._quiet)) is not None:
                    self._in_engine += bool(batch.parts)
                    self._to_decode.notify_all()
                    return batch
                if self._closed and self._quiet and not self._slow.pending:
                    self._to_run.notify_all()
                    return None
                due = self._ready.due()
                self._to_run.wait(None if due == math.inf else due - now)

    def _settle(self, batch: Batch) -> float:
        """Seconds of the device for each row."""
        for part in batch.dropped:
            if not part.item.left:
                part.item.expire(time.monotonic())
        if not batch.parts:
            return 0.0
        started = time.monotonic()
        try:
            mark, outputs = self._infer(batch)
        except BaseException as exc:  # any error goes to the batch's callers; the runner goes on
            for part in batch.parts:
                part.item.fail(exc)
        else:
            _hand_out(batch.parts, outputs, started, RunTiming(0.0, time.monotonic() - started, batch.rows, batch=mark))
        return (time.monotonic() - started) / batch.rows

    def _infer(self, batch: Batch) -> tuple[object, Outputs]:
        started = time.monotonic()
        try:
            mark = None if self._on_batch is None else self._on_batch(batch.engine, batch.rows)
            return mark, batch.engine.run([part.pixels for part in batch.parts], batch.evidence)
        finally:
            self._left_engine(batch.rows, time.monotonic() - started)

    def _ran(self, batch: Batch, seconds: float) -> None:
        """`seconds` for each row."""
        with self._lock:
            for part in (*batch.parts, *batch.dropped):
                self._ended(part.item, part.decode_s + seconds * len(part.pixels))

    def _left_engine(self, rows: int, seconds: float) -> None:
        with self._lock:
            self._in_engine -= 1
            self._ready.ran(seconds)
            self._row_s += 0.05 * (seconds / rows - self._row_s)
            if self._quiet:
                self._to_run.notify()

    # Both, under the lock

    def _begun(self, item: Item) -> None:
        """Work that comes back from a slow lane."""
        self._queue.begin(item)
        self._running += 1
        self._bytes += item.size

    def _ended(self, item: Item, seconds: float) -> None:
        if self._bytes >= self._max_bytes:  # decoders may be waiting for these
            self._to_decode.notify_all()
        self._queue.end(item, seconds)
        self._running -= 1
        self._bytes -= item.size

    @property
    def _has_room(self) -> bool:
        return self._ready.rows + self._decoding < self._ready_rows and self._bytes < self._max_bytes

    @property
    def _quiet(self) -> bool:
        """Whether the device is idle and no rows are coming from the decoders."""
        coming = self._decoding > 0 or (self._has_room and len(self._queue) > 0)
        return self._in_engine == 0 and not coming


class _NoPart(Enum):
    ANSWERED, SLOW = "it expired or failed", "it is for a slow lane"


def _prepared(item: Item, now: float, slow: Callable[[], bool]) -> Part | _NoPart:
    try:
        if item.expired(now):
            item.expire(now)
            return _NoPart.ANSWERED
        if slow():
            return _NoPart.SLOW
        pixels = item.work.prepare()
        return _part(item, pixels, now, time.monotonic() - now)
    except BaseException as exc:  # any error goes to the caller; the decoder goes on
        item.fail(exc)
        return _NoPart.ANSWERED


def _part(item: Item, pixels: Pixels, now: float, decode_s: float) -> Part:
    """Of an item that a decoder took at `now`."""
    work = item.work
    deadline = math.inf if work.deadline is None else work.deadline
    return Part(item, work.engine, work.evidence, pixels, deadline, item.waited_s(now), now + decode_s, decode_s)


def _hand_out(parts: list[Part], outputs: Outputs, started: float, run: RunTiming) -> None:
    row = 0
    for part in parts:
        end = row + len(part.pixels)
        timing = dataclasses.replace(run, queue=part.waited + started - part.since, first=row == 0)
        _finish(part.item, _rows(outputs, row, end), timing)
        row = end


def _finish(item: Item, outputs: Outputs, timing: RunTiming) -> None:
    try:
        return item.succeed(item.work.finish(outputs, timing))
    except BaseException as exc:
        return item.fail(exc)


def _rows(outputs: Outputs, start: int, end: int) -> Outputs:
    evidence = None if outputs.evidence is None else outputs.evidence[start:end]
    return Outputs(outputs.probabilities[start:end], outputs.logits[start:end], evidence)
