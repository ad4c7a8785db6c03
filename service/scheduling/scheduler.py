"""The interfaces between a request and an engine: work with its steps, and the scheduler that runs it.

`Lanes` runs work on a CPU and `Batcher` on a GPU; their callers see only `Scheduler`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from bundle.preprocessing import Pixels, Preprocessing
from service.engines.engine import Engine, Outputs

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class RunTiming:
    """Seconds of one run: in the queue and waiting for a batch, and in the engine.

    `rows` is the size of the whole batch. Exactly one piece of a batch is `first`, so runs are counted by those.
    """

    queue: float
    inference: float
    rows: int = 1
    first: bool = True
    batch: object = None  # what the batcher's `OnBatch` returned


class Prepared(NamedTuple):
    """The pixels of one image, uint8 [crop, crop, 3], and the seconds that its two stages took."""

    pixels: Pixels
    decode: float
    preprocess: float


Prepare = Callable[[bytes, Preprocessing], Prepared]
"""From an encoded image to pixels. Raises `ImageRefused`."""


class Work(Protocol[T_co]):
    """One piece of work. The scheduler calls `estimate`, one of both forms of `prepare`, the engine, and `finish`."""

    @property
    def engine(self) -> Engine: ...

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits."""
        ...

    @property
    def deadline(self) -> float | None:
        """Seconds of `time.monotonic`; work that has not reached the engine by then is dropped."""
        ...

    @property
    def evidence(self) -> bool:
        """Whether the engine gives the evidence maps too."""
        ...

    @property
    def caller(self) -> str:
        """Tells callers apart."""
        ...

    def estimate(self) -> float:
        """About how many seconds of one core `prepare` takes; may be left out. Raises as `prepare` does."""
        ...

    def prepare(self) -> Pixels:
        """uint8 [n, H, W, 3]; runs on a thread of the scheduler."""
        ...

    def prepare_by(self, prepare: Prepare, /) -> Pixels:
        """The same, where another process decodes."""
        ...

    def finish(self, outputs: Outputs, timing: RunTiming) -> T_co:
        """The answer, from the outputs of the n rows of `prepare`; runs on a thread of the scheduler."""
        ...


class Scheduler(Protocol):
    @property
    def waiting(self) -> int:
        """Pieces of work that no thread has taken yet."""
        ...

    @property
    def slow_waiting(self) -> int:
        """Pieces of work that wait for a process that decodes what takes long."""
        ...

    @property
    def running(self) -> int:
        """Pieces of work between queue and answer, those of `slow_waiting` among them."""
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
