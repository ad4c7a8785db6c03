"""One thread per core, each carrying a request from bytes to probabilities without a hand-over.

On a CPU a batch of sixteen costs sixteen times a single picture, so waiting for company only adds latency. The queue
before the lanes is bounded in requests and bytes; when it is full, it refuses at once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.errors import DeadlineExpired, Draining, QueueFull

T = TypeVar("T")


@dataclass(slots=True)
class _Item:
    """Owns its caller's future and its own time stamps (seconds of the monotonic clock)."""

    work: Callable[[float], Any]
    size: int
    deadline: float | None
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    enqueued: float = field(default_factory=time.monotonic)

    def execute(self) -> None:
        waited = time.monotonic() - self.enqueued
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return self._settle(error=DeadlineExpired(waited))
        try:
            return self._settle(self.work(waited))
        except BaseException as exc:  # whatever it was, the caller gets it and the lane lives on
            return self._settle(error=_for_caller(exc))

    def _settle(self, result: object = None, error: BaseException | None = None) -> None:
        future = self.future
        del self.future, self.work  # an error's trace holds this item: through them it would hold itself, and a picture
        try:
            self.loop.call_soon_threadsafe(_deliver, future, result, error)
        except RuntimeError as exc:  # the loop is closed: nobody is left to be told
            if not self.loop.is_closed():
                raise RuntimeError("a result could not be delivered") from exc


def _for_caller(error: BaseException) -> BaseException:
    """A future cannot hold StopIteration, and what is no `Exception`, such as SystemExit, would end the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the work raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _deliver(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # the caller left
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Lanes:
    """Runs work on `count` threads; at most `queue_limit` pieces of `queue_bytes` together wait for one."""

    def __init__(self, count: int, queue_limit: int, queue_bytes: int) -> None:
        self.count = count
        self._queue_limit, self._queue_bytes = queue_limit, queue_bytes
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._running = 0
        self._mean_s = 0.01  # moving average of a piece's running time, for the retry hint
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._lane, name=f"lane-{index}") for index in range(count)]
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

    def submit(self, work: Callable[[float], T], size: int, deadline: float | None = None) -> "asyncio.Future[T]":
        """Queue `work`, which holds `size` bytes; a lane calls it with the seconds that it waited.

        `deadline` is in seconds of `time.monotonic`; work that is still waiting then is dropped. Cancelling the
        future drops waiting work too. Raises `QueueFull` or `Draining`; the future may raise `DeadlineExpired`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        item = _Item(work, size, deadline, future, loop)
        with self._changed:
            if self._closed:
                raise Draining
            self._refuse_when_full(size)
            self._queue.append(item)
            self._bytes += size
            self._changed.notify()
        return future

    def close(self) -> None:
        """Refuse new work, finish what was accepted, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _refuse_when_full(self, size: int) -> None:
        if not self._fits(size):
            self._forget_who_left()
        if len(self._queue) >= self._queue_limit:
            raise QueueFull(len(self._queue), self._queue_limit, "requests", self._retry_after_s())
        if not self._fits(size):
            raise QueueFull(self._bytes, self._queue_bytes, "bytes", self._retry_after_s())

    def _fits(self, size: int) -> bool:
        """A piece over the bytes' limit is still taken when nothing else waits."""
        few, small = len(self._queue) < self._queue_limit, self._bytes + size <= self._queue_bytes
        return few and (small or not self._queue)

    def _forget_who_left(self) -> None:
        """Callers who gave up must not take the places of those who did not."""
        self._queue = deque(item for item in self._queue if not item.future.done())
        self._bytes = sum(item.size for item in self._queue)

    def _retry_after_s(self) -> float:
        """When half of the queue will have been worked off."""
        return max(0.01, len(self._queue) / 2 * self._mean_s / self.count)

    def _lane(self) -> None:
        while (item := self._next()) is not None:
            started = time.monotonic()
            item.execute()
            del item  # a lane without work holds no picture
            with self._changed:
                self._running -= 1
                self._mean_s += 0.05 * (time.monotonic() - started - self._mean_s)

    def _next(self) -> _Item | None:
        with self._changed:
            while True:
                while self._queue:
                    item = self._queue.popleft()
                    self._bytes -= item.size
                    if not item.future.done():
                        self._running += 1
                        return item
                if self._closed:
                    return None
                self._changed.wait()
