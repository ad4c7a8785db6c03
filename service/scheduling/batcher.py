"""The scheduler for a GPU: many threads decode, a few form batches and run them.

A GPU takes little longer for a batch of 64 than for one image, and one core decodes far less than a GPU infers.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from service.engines.engine import Engine, Outputs
from service.errors import Draining
from service.scheduling.bounded_queue import BoundedQueue, Item
from service.scheduling.ready import Batch, Part, Ready
from service.scheduling.scheduler import RunTiming, Work

T = TypeVar("T")

OnBatch = Callable[[Engine, int], None]
"""Called on a runner's thread before each batch, with its number of rows."""

_RUNNERS = 2  # while one batch runs, the other runner hands out the last results and assembles the next batch


class Batcher:
    """`decoders` threads prepare work until `ready_rows` rows or more wait; a batch waits `max_wait_s` for more rows.

    At most `queue_limit` pieces of work with `queue_bytes` together wait to be prepared. Decoders take no more work
    while the pieces between queue and answer hold `queue_bytes` or more.
    """

    def __init__(
        self,
        decoders: int,
        queue_limit: int,
        queue_bytes: int,
        max_wait_s: float,
        ready_rows: int,
        on_batch: OnBatch | None = None,
    ) -> None:
        self.decoders = decoders
        self._queue = BoundedQueue(queue_limit, queue_bytes)
        self._ready = Ready(max_wait_s)
        self._ready_rows, self._max_bytes = ready_rows, queue_bytes
        self._on_batch = on_batch
        self._decoding = self._in_engine = self._running = self._bytes = 0
        self._decode_s, self._row_s = 0.01, 0.0001  # moving averages for a piece and for a row, for the retry hint
        self._closed = False
        self._lock = threading.Lock()
        self._to_decode, self._to_run = threading.Condition(self._lock), threading.Condition(self._lock)
        self._threads = [threading.Thread(target=self._decode, name=f"decoder-{index}") for index in range(decoders)]
        self._threads += [threading.Thread(target=self._run, name=f"runner-{index}") for index in range(_RUNNERS)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return self._running

    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, work: Work[T]) -> "asyncio.Future[T]":
        """Queue the work for a decoder. Raises `QueueFull` or `Draining`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        item = Item(work, future, loop, work.size)
        with self._lock:
            if self._closed:
                raise Draining
            self._queue.put(item, max(self._decode_s / self.decoders, self._row_s))
            self._to_decode.notify()
        return future

    def close(self) -> None:
        """Refuse new work, finish what was accepted, end the threads."""
        with self._lock:
            self._closed = True
            self._to_decode.notify_all()
            self._to_run.notify_all()
        for thread in self._threads:
            thread.join()

    # Decoders

    def _decode(self) -> None:
        while (item := self._next_item()) is not None:
            started = time.monotonic()
            part, size = _prepared(item, started), item.size
            del item  # a decoder without work holds no image
            self._decoded(part, size, time.monotonic() - started)
            del part

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

    def _decoded(self, part: Part | None, size: int, seconds: float) -> None:
        with self._lock:
            self._decoding -= 1
            self._decode_s += 0.05 * (seconds - self._decode_s)
            if part is None:
                self._ended(1, size)
                return
            due = self._ready.due()
            self._ready.put(part)
            if self._ready.due() < due:
                self._to_run.notify()

    # Runners

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._settle(batch)
            with self._lock:
                parts = [*batch.parts, *batch.dropped]
                self._ended(len(parts), sum(part.item.size for part in parts))
            del batch, parts  # a runner without work holds no image

    def _next_batch(self) -> Batch | None:
        with self._lock:
            while True:
                now = time.monotonic()
                if (batch := self._ready.take(now, self._quiet)) is not None:
                    self._in_engine += bool(batch.parts)
                    self._to_decode.notify_all()
                    return batch
                if self._closed and self._quiet:
                    self._to_run.notify_all()
                    return None
                due = self._ready.due()
                self._to_run.wait(None if due == math.inf else due - now)

    def _settle(self, batch: Batch) -> None:
        for part in batch.dropped:
            if not part.item.left:
                part.item.expire(time.monotonic())
        if not batch.parts:
            return
        started = time.monotonic()
        try:
            outputs = self._infer(batch)
        except BaseException as exc:  # any error goes to the batch's callers; the runner goes on
            for part in batch.parts:
                part.item.fail(exc)
            return
        _hand_out(batch.parts, outputs, started, time.monotonic() - started)

    def _infer(self, batch: Batch) -> Outputs:
        started = time.monotonic()
        try:
            if self._on_batch is not None:
                self._on_batch(batch.engine, batch.rows)
            return batch.engine.run([part.pixels for part in batch.parts], batch.evidence)
        finally:
            self._ran(batch.rows, time.monotonic() - started)

    def _ran(self, rows: int, seconds: float) -> None:
        with self._lock:
            self._in_engine -= 1
            self._ready.ran(seconds)
            self._row_s += 0.05 * (seconds / rows - self._row_s)
            if self._quiet:
                self._to_run.notify()

    # Both, under the lock

    def _ended(self, count: int, size: int) -> None:
        if self._bytes >= self._max_bytes:  # decoders may be waiting for these
            self._to_decode.notify_all()
        self._running -= count
        self._bytes -= size

    @property
    def _has_room(self) -> bool:
        return self._ready.rows + self._decoding < self._ready_rows and self._bytes < self._max_bytes

    @property
    def _quiet(self) -> bool:
        """Whether the device is idle and no rows are coming from the decoders."""
        coming = self._decoding > 0 or (self._has_room and len(self._queue) > 0)
        return self._in_engine == 0 and not coming


def _prepared(item: Item, now: float) -> Part | None:
    """None where the item has its answer already: it expired or failed."""
    try:
        if item.expired(now):
            item.expire(now)
            return None
        work = item.work
        pixels = work.prepare()
        deadline = math.inf if work.deadline is None else work.deadline
        return Part(item, work.engine, work.evidence, pixels, deadline, now - item.enqueued, time.monotonic())
    except BaseException as exc:  # any error goes to the caller; the decoder goes on
        item.fail(exc)
        return None


def _hand_out(parts: list[Part], outputs: Outputs, started: float, inference: float) -> None:
    row, rows = 0, len(outputs.probabilities)
    for part in parts:
        end = row + len(part.pixels)
        timing = RunTiming(part.waited + started - part.since, inference, rows, first=row == 0)
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
