"""Counts of each version since the server started, which clients get by ModelStatistics.

`service.metrics` counts the same and more for Prometheus.
"""

import time
from dataclasses import dataclass, field

from service.core.answers import AnyAnswer
from service.core.recorder import End, Where


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
    """Time before, inside and after the engine, in nanoseconds."""

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
    """The counts of one version."""

    last_ms: int = 0  # when the last image was answered, since 1970
    images: int = 0
    success: Duration = field(default_factory=Duration)  # requests, from arrival to response
    fail: Duration = field(default_factory=Duration)
    queue_ns: int = 0  # what `compute` counts waited before it
    compute: Compute = field(default_factory=Compute)  # pieces of work: an image, or all pixels of a request
    by_size: dict[int, Compute] = field(default_factory=dict)  # rows that the engine ran at once → those runs

    @property
    def runs(self) -> int:
        return sum(compute.count for compute in self.by_size.values())


class Statistics:
    """A reader of the recorder. The event loop's thread alone adds, so that adding needs no lock."""

    def __init__(self) -> None:
        self._counts: dict[Where, Counts] = {}

    def of(self, where: Where) -> Counts:
        """All zero for a version that has answered nothing."""
        return self._counts.get(where) or Counts()

    def answered(self, answer: AnyAnswer, trace_id: str = "") -> None:  # noqa: ARG002 - as every reader
        """Count the images, the stages and the engine's runs.

        A run that several requests shared counts once, with its time; the stages around it are each request's own.
        """
        counts, timings, parts = self._of(answer.model.labels), answer.timings, len(answer.runs)
        before = int(((timings.decode or 0.0) + (timings.preprocess or 0.0)) * 1e9)
        inside, after = int(timings.inference * 1e9), int(timings.postprocess * 1e9)
        counts.last_ms = time.time_ns() // 1_000_000
        counts.images += len(answer.tops)
        counts.queue_ns += int(timings.queue * 1e9)
        counts.compute.add(before, inside, after)
        for run in answer.runs:
            by_size = counts.by_size.get(run.rows)
            if by_size is None:
                by_size = counts.by_size[run.rows] = Compute()
            by_size.count += run.first
            by_size.before += before // parts
            by_size.inside += int(run.inference * 1e9) * run.first
            by_size.after += after // parts

    def ended(self, end: End) -> None:
        if end.model is None or not end.inference:
            return
        counts = self._of(end.where)
        (counts.success if end.code == "OK" else counts.fail).add(int(end.seconds * 1e9))

    def forget(self, where: Where) -> None:
        self._counts.pop(where, None)

    def _of(self, where: Where) -> Counts:
        counts = self._counts.get(where)
        if counts is None:
            counts = self._counts[where] = Counts()
        return counts
