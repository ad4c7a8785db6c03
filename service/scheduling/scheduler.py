"""What stands between a request and an engine: work that knows its steps, and the small interface of whoever runs it.

`Lanes` runs work on a CPU and `Batcher` on a GPU; nobody else knows which of the two it is.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bundle.preprocessing import Pixels
from service.engines.engine import Engine, Outputs

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RunTiming:
    """Seconds that the scheduler saw pass: waiting for a thread and for company, and in the engine.

    `rows` went through the engine together, this piece's and its company's. One piece of a run is `first`: who counts
    runs counts those.
    """

    queue: float
    inference: float
    rows: int = 1
    first: bool = True


class Work(Protocol[T_co]):
    """One request's way through the engine. The scheduler calls `prepare`, the engine, and `finish`, in this order."""

    @property
    def engine(self) -> Engine: ...

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits."""
        ...

    @property
    def deadline(self) -> float | None:
        """In seconds of `time.monotonic`; work that is not in the engine by then is dropped."""
        ...

    @property
    def evidence(self) -> bool:
        """Whether the engine should give the evidence maps too."""
        ...

    def prepare(self) -> Pixels:
        """uint8 [n, H, W, 3], on a thread of the scheduler's."""
        ...

    def finish(self, outputs: Outputs, spent: RunTiming) -> T_co:
        """The caller's answer from the n rows that `prepare` gave, on a thread of the scheduler's."""
        ...


class Scheduler(Protocol):
    @property
    def waiting(self) -> int:
        """Pieces of work that no thread has taken yet."""
        ...

    @property
    def running(self) -> int:
        """Pieces of work between queue and answer."""
        ...

    def submit(self, work: Work[T]) -> "asyncio.Future[T]":
        """Queue `work` from the event loop's thread. Cancelling the future drops work that has not begun.

        Raises `QueueFull` or `Draining`; the future may raise `DeadlineExpired` and what the work raises.
        """
        ...

    def alive(self) -> bool:
        """False once a thread has died."""
        ...

    def close(self) -> None:
        """Refuse new work, finish what was accepted, end the threads."""
        ...
