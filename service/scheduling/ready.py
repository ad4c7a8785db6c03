"""Decoded rows that wait for a batch. A batch leaves when it is full, when it is due, or when no more rows are coming.

Not thread-safe: the batcher calls it under its own lock and passes the time.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from bundle.preprocessing import Pixels
from service.engines.engine import Engine
from service.scheduling.item import Item


@dataclass(slots=True)
class Part:
    """A piece of work after `prepare`. Times in seconds of the monotonic clock."""

    item: Item
    engine: Engine
    evidence: bool
    pixels: Pixels
    deadline: float  # infinite without one
    waited: float  # seconds in the queue before it was decoded
    since: float  # when it was decoded
    decode_s: float = 0.0


@dataclass(slots=True)
class Batch:
    """Parts for one run of the engine. `dropped` parts were cancelled or are past their deadline, and do not run."""

    engine: Engine
    evidence: bool
    parts: list[Part] = field(default_factory=list)
    dropped: list[Part] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(len(part.pixels) for part in self.parts)


class _Queue:
    """The parts that wait for one engine, with evidence or without."""

    def __init__(self, engine: Engine, evidence: bool) -> None:
        self.engine, self.evidence = engine, evidence
        self.parts: deque[Part] = deque()
        self.rows = 0
        self.deadline = math.inf  # the earliest

    @property
    def full(self) -> bool:
        return self.rows >= self.engine.batch_sizes[-1]

    def put(self, part: Part) -> None:
        self.parts.append(part)
        self.rows += len(part.pixels)
        self.deadline = min(self.deadline, part.deadline)

    def take(self, now: float) -> Batch:
        """As many parts as the largest batch holds, in the order of arrival; a part is never split."""
        batch, rows = Batch(self.engine, self.evidence), 0
        while self.parts:
            part = self.parts[0]
            if part.item.left or now >= part.deadline:
                batch.dropped.append(self.parts.popleft())
                continue
            rows += len(part.pixels)
            if batch.parts and rows > self.engine.batch_sizes[-1]:
                break
            batch.parts.append(self.parts.popleft())
        self.rows = sum(len(part.pixels) for part in self.parts)
        self.deadline = min((part.deadline for part in self.parts), default=math.inf)
        return batch


class Ready:
    """Waiting parts, by engine and evidence. The duration of a run is reserved before every deadline."""

    def __init__(self, max_wait_s: float, run_s: float = 0.002) -> None:
        self._max_wait_s = max_wait_s
        self._run_s = run_s  # a moving average
        self.rows = 0
        self._queues: dict[tuple[int, bool], _Queue] = {}  # none is empty, so none keeps a retired engine

    def put(self, part: Part) -> None:
        key = id(part.engine), part.evidence
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(part.engine, part.evidence)
        queue.put(part)
        self.rows += len(part.pixels)

    def ran(self, seconds: float) -> None:
        """Take the duration of one run into account."""
        self._run_s += 0.05 * (seconds - self._run_s)

    def due(self) -> float:
        """When the next batch must leave, however small it is; infinite while nothing waits."""
        return min(map(self._due, self._queues.values()), default=math.inf)

    def take(self, now: float, quiet: bool) -> Batch | None:
        """The batch that leaves now, if any. `quiet` says that no more rows are coming and that the device is idle.

        Of several, the one whose first part arrived first leaves, so that a busy model does not starve another.
        """
        going = {key: queue for key, queue in self._queues.items() if quiet or self._due(queue) <= now}
        if not going:
            return None
        key = min(going, key=lambda key: going[key].parts[0].item.enqueued)
        queue = going[key]
        before = queue.rows
        batch = queue.take(now)
        self.rows -= before - queue.rows
        if not queue.parts:
            del self._queues[key]
        return batch

    def _due(self, queue: _Queue) -> float:
        """At once for a full batch, or one in which a deadline leaves no time to wait for more rows."""
        waited_out = queue.parts[0].since + self._max_wait_s
        return -math.inf if queue.full or queue.deadline - self._run_s < waited_out else waited_out
