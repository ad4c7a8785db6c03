"""Measures of a model besides its accuracy, as records of the manifest; intervals are 95 % Wilson intervals."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TopK:
    """How often the true class is among the k likeliest."""

    k: int
    share: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence."""

    confidence: float  # their mean top probability
    accuracy: float
    share: float  # of all answers


@dataclass(frozen=True)
class Uncalibrated:
    """The same measures before temperature scaling, from the softmax of the bare logits."""

    negative_log_likelihood: float
    expected_calibration_error: float
    brier: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Confident:
    """The answers whose top probability reaches the bundle's threshold; without any, precision is 0."""

    threshold: float
    precision: float
    precision_interval: tuple[float, float] | None
    coverage: float
