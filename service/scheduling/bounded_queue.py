"""The queue before a scheduler's threads, bounded in items and in bytes; when it is full it refuses at once.

Not thread-safe: a scheduler calls it under its own lock.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from service.errors import DeadlineExpired, QueueFull
from service.scheduling.scheduler import Work


@dataclass(slots=True)
class Item:
    """Owns its caller's future and its own time stamps (seconds of the monotonic clock)."""

    work: Work[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    size: int
    enqueued: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> bool:
        """Whether the caller has cancelled."""
        return self.future.done()

    def expired(self, now: float) -> bool:
        return self.work.deadline is not None and now >= self.work.deadline

    def succeed(self, result: object) -> None:
        self._settle(result, None)

    def fail(self, error: BaseException) -> None:
        self._settle(None, _for_caller(error))

    def expire(self, now: float) -> None:
        self._settle(None, DeadlineExpired(now - self.enqueued))

    def _settle(self, result: object, error: BaseException | None) -> None:
        future = self.future
        del self.future, self.work  # an error's trace refers to this item: a reference cycle would keep the image alive
        try:
            self.loop.call_soon_threadsafe(_deliver, future, result, error)
        except RuntimeError as exc:  # the loop is closed, so no caller is left
            if not self.loop.is_closed():
                raise RuntimeError("a result could not be delivered") from exc


def _for_caller(error: BaseException) -> BaseException:
    """Wrap what a future cannot hold (StopIteration) or what would end the event loop (SystemExit)."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the work raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _deliver(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # the caller cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class BoundedQueue:
    """Items in the order of arrival: at most `limit` of them, at most `limit_bytes` together."""

    def __init__(self, limit: int, limit_bytes: int) -> None:
        self._limit, self._limit_bytes = limit, limit_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item, seconds_each: float) -> None:
        """Raises `QueueFull`, with a retry hint where an item takes `seconds_each`."""
        if not self._fits(item.size):
            self._drop_cancelled()
        retry_after_s = max(0.01, len(self._items) / 2 * seconds_each)  # until half of the queue is done
        if len(self._items) >= self._limit:
            raise QueueFull(len(self._items), self._limit, "requests", retry_after_s)
        if not self._fits(item.size):
            raise QueueFull(self._bytes, self._limit_bytes, "bytes", retry_after_s)
        self._items.append(item)
        self._bytes += item.size

    def pop(self) -> Item | None:
        """The oldest item whose caller still waits."""
        while self._items:
            item = self._items.popleft()
            self._bytes -= item.size
            if not item.left:
                return item
        return None

    def _fits(self, size: int) -> bool:
        """An item over the limit of bytes is still accepted when nothing else waits."""
        few, small = len(self._items) < self._limit, self._bytes + size <= self._limit_bytes
        return few and (small or not self._items)

    def _drop_cancelled(self) -> None:
        """Items of callers that cancelled must not take the places of others."""
        self._items = deque(item for item in self._items if not item.left)
        self._bytes = sum(item.size for item in self._items)
