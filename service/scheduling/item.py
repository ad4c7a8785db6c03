"""A piece of work on its way through a scheduler: it owns its caller's future and its own time stamps."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from bundle.preprocessing import Pixels
from service.errors import DeadlineExpired
from service.scheduling.scheduler import Work


@dataclass(slots=True, eq=False)
class Item:
    """Times in seconds of the monotonic clock.

    `pixels` are there once a process of its own has prepared them; `worked_s` is how long that took. `charged_s` is
    what the queue charges its caller while it runs.
    """

    work: Work[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    caller: str
    size: int
    enqueued: float = field(default_factory=time.monotonic)
    pixels: Pixels | None = None
    worked_s: float = 0.0
    charged_s: float = 0.0

    @classmethod
    def of(cls, work: Work[Any]) -> "Item":
        """An item that answers on the running event loop."""
        loop = asyncio.get_running_loop()
        return cls(work, loop.create_future(), loop, work.caller, work.size)

    @property
    def left(self) -> bool:
        """Whether the caller has cancelled."""
        return self.future.done()

    def expired(self, now: float) -> bool:
        return self.work.deadline is not None and now >= self.work.deadline

    def waited_s(self, now: float) -> float:
        """Time that it spent in queues."""
        return now - self.enqueued - self.worked_s

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
