"""Whether a number that is sampled while something runs stays where it is, or grows."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flatness:
    """Medians of the second sixth and of the last: the first is warm-up, and a peak moves no median."""

    early: float
    late: float
    most: float
    allowed: float  # growth

    @property
    def flat(self) -> bool:
        return self.late - self.early <= self.allowed


def flatness(samples: Sequence[float], least: float, share: float = 0.0) -> Flatness:
    """It may grow by `least`, or by a `share` of what it was, whichever is more. Takes six samples at least."""
    sixth = len(samples) // 6
    if sixth == 0:
        raise ValueError(f"expected 6 samples or more, got {len(samples)}")
    early, late = statistics.median(samples[sixth : 2 * sixth]), statistics.median(samples[-sixth:])
    return Flatness(early, late, max(samples), max(least, share * early))
