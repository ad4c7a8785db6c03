"""What each version has answered since the server started, in plain numbers, for whoever asks the server itself.

Prometheus has the same and more in `service.metrics`; this is what a client gets that only speaks gRPC.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.core.classifier import Timings
from service.scheduling.scheduler import RunTiming

Where = tuple[str, str]
"""A model's name and version, as `LiveModel.labels` has them."""


@dataclass(slots=True)
class Duration:
    """How often something happened, and nanoseconds in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Compute:
    """What work with the engine took before, inside and after it, in nanoseconds."""

    count: int = 0
    before: int = 0
    inside: int = 0
    after: int = 0

    def add(self, before: int, inside: int, after: int) -> None:
        self.count += 1
        self.before += before
        self.inside += inside
        self.after += after


@dataclass(slots=True)
class Counts:
    """One version's."""

    last_ms: int = 0  # when the last picture was answered, since 1970
    pictures: int = 0
    success: Duration = field(default_factory=Duration)  # requests, from arrival to response
    fail: Duration = field(default_factory=Duration)
    queue_ns: int = 0  # what `compute` counts waited before it
    compute: Compute = field(default_factory=Compute)  # pieces of work: a picture, or all pixels of a request
    by_size: dict[int, Compute] = field(default_factory=dict)  # rows that the engine ran at once → those runs

    @property
    def runs(self) -> int:
        return sum(compute.count for compute in self.by_size.values())


class Statistics:
    """Filled from the event loop's thread alone, so that adding needs no lock."""

    def __init__(self) -> None:
        self._counts: dict[Where, Counts] = {}

    def of(self, where: Where) -> Counts:
        """All zero for a version that has answered nothing."""
        return self._counts.get(where) or Counts()

    def ran(self, where: Where, pictures: int, runs: Sequence[RunTiming], timings: Timings) -> None:
        """Pictures of one request were answered, which together took `timings`, by `runs` that others may have shared.

        A run takes its time once, whoever shares it; what comes before and after it is each one's own.
        """
        counts, parts = self._of(where), len(runs)
        before = int((timings.decode + timings.preprocess) * 1e9)
        inside, after = int(timings.inference * 1e9), int(timings.postprocess * 1e9)
        counts.last_ms = time.time_ns() // 1_000_000
        counts.pictures += pictures
        counts.queue_ns += int(timings.queue * 1e9)
        counts.compute.add(before, inside, after)
        for run in runs:
            by_size = counts.by_size.get(run.rows)
            if by_size is None:
                by_size = counts.by_size[run.rows] = Compute()
            by_size.count += run.first
            by_size.before += before // parts
            by_size.inside += int(run.inference * 1e9) * run.first
            by_size.after += after // parts

    def ended(self, where: Where, succeeded: bool, seconds: float) -> None:
        """A request for inference ended."""
        counts = self._of(where)
        (counts.success if succeeded else counts.fail).add(int(seconds * 1e9))

    def forget(self, where: Where) -> None:
        """The version left service for good."""
        self._counts.pop(where, None)

    def _of(self, where: Where) -> Counts:
        counts = self._counts.get(where)
        if counts is None:
            counts = self._counts[where] = Counts()
        return counts
