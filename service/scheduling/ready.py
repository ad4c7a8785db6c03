"""Decoded rows that wait for company, and the rules by which they go: full, due, or with nothing left to wait for.

Not safe by itself: the batcher calls it under its own lock, and brings the time along.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from bundle.preprocessing import Pixels
from service.engines.engine import Engine
from service.scheduling.bounded_queue import Item


@dataclass(slots=True)
class Part:
    """A piece of work after `prepare`. Times in seconds of the monotonic clock."""

    item: Item
    engine: Engine
    evidence: bool
    pixels: Pixels
    deadline: float  # infinite where it has none
    waited: float  # seconds in the queue before it was decoded
    since: float  # when it was decoded


@dataclass(slots=True)
class Batch:
    """Parts for one run of the engine. `dropped` are those that must not reach it: left, or past their deadline."""

    engine: Engine
    evidence: bool
    parts: list[Part] = field(default_factory=list)
    dropped: list[Part] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(len(part.pixels) for part in self.parts)


class _Queue:
    """What waits for one engine, with evidence or without."""

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
        """As many parts as the largest batch holds, in the order they came; a part is never torn apart."""
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
    """Waiting parts, by engine and evidence. `run_s` is how long a run takes, for those who have a deadline."""

    def __init__(self, max_wait_s: float, run_s: float) -> None:
        self._max_wait_s = max_wait_s
        self.run_s = run_s
        self.rows = 0
        self._queues: dict[tuple[int, bool], _Queue] = {}  # none is empty, so none keeps a retired engine

    def put(self, part: Part) -> None:
        key = id(part.engine), part.evidence
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(part.engine, part.evidence)
        queue.put(part)
        self.rows += len(part.pixels)

    def due(self) -> float:
        """When the next batch must go, however small it is; infinite where nothing waits."""
        return min(map(self._due, self._queues.values()), default=math.inf)

    def take(self, now: float, quiet: bool) -> Batch | None:
        """The batch that goes now. `quiet` says that no company is to be had and that the device has nothing to do.

        Of several that could go, the one whose first part came first: a busy model does not starve another.
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
        """At once where it is full, or where somebody's deadline leaves no time for company."""
        waited_out = queue.parts[0].since + self._max_wait_s
        return -math.inf if queue.full or queue.deadline - self.run_s < waited_out else waited_out
