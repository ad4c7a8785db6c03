"""A variant: the same classifier in fewer bits, in a file of its own beside the trained model."""

import math
from dataclasses import dataclass

from bundle.precision import VariantPrecision

_ROUNDING = 1e-9  # so that a loss of exactly the limit is not over it


@dataclass(frozen=True)
class VariantMetrics:
    """Measured on the photos of `Manifest.metrics`, which has the rest."""

    n: int
    top1: float
    top1_interval: tuple[float, float]  # 95 % Wilson
    negative_log_likelihood: float
    expected_calibration_error: float
    agreement: float  # share of photos whose most probable label is the primary model's


@dataclass(frozen=True)
class Variant:
    """Inputs, outputs, labels, preprocessing, temperature and threshold are the primary model's.

    `largest_loss` is the top-1 accuracy, from 0 to 1, that a service with `--precision auto` may trade for speed.
    """

    precision: VariantPrecision
    file: str
    bytes: int
    metrics: VariantMetrics
    speedup: float  # images a second on one CPU thread over the primary model's, measured at export
    largest_loss: float

    def __post_init__(self) -> None:
        if not 0 < self.speedup < math.inf:
            raise ValueError(f"a finite speedup over 0, got {self.speedup}")
        if not 0 <= self.largest_loss <= 1:
            raise ValueError(f"a largest_loss from 0 to 1, got {self.largest_loss}")
        if self.bytes < 0:
            raise ValueError(f"bytes of 0 or more, got {self.bytes}")

    def worth_it(self, top1: float) -> bool:
        """Whether it is faster than a primary model of this test accuracy, and loses no more than is allowed."""
        return self.speedup > 1 and top1 - self.metrics.top1 <= self.largest_loss + _ROUNDING
