"""From validation logits to probabilities that mean what they say, and to the answers worth acting on."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.optimize import minimize_scalar

from bundle.manifest import Calibration, Histogram, Reference
from training.evaluation.intervals import wilson
from training.evaluation.metrics import negative_log_likelihood

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

_WANTED_PRECISION = 0.99
_LOG_TEMPERATURES = (math.log(0.05), math.log(20.0))
_THRESHOLD_DIGITS = 10**4  # thresholds have four decimals, so that they read the same everywhere


def calibrate(logits: Floats, targets: Ints) -> Calibration:
    """Temperature and abstention threshold from logits [N, C] and class indices [N] of the validation split."""
    temperature = best_temperature(logits, targets)
    probabilities = softmax(logits, temperature)
    threshold, precision, coverage = abstention(probabilities, targets)
    answered = round(coverage * len(targets))
    lower = wilson(round(precision * answered), answered)[0] if answered else 0.0
    return Calibration(temperature, threshold, precision, coverage, lower)


def softmax(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities in float64: the softmax of logits / temperature over the last axis."""
    result: npt.NDArray[np.float64] = special.softmax(logits.astype(np.float64) / temperature, axis=-1)
    return result


def best_temperature(logits: Floats, targets: Ints) -> float:
    """The temperature of least negative log-likelihood (Guo et al. 2017), between 0.05 and 20."""

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(softmax(logits, math.exp(log_temperature)), targets)

    found = minimize_scalar(loss, bounds=_LOG_TEMPERATURES)  # it has one minimum there
    return round(math.exp(found.x), 6)


def abstention(probabilities: Floats, targets: Ints) -> tuple[float, float, float]:
    """(threshold, precision, coverage): the smallest top probability from which on answers are 99 % right.

    Only confidences that occur are tried. Where none is sure enough the threshold is 1, with what it gives. Few photos
    make any precision easy to reach by chance: `Calibration.precision_lower_bound` says how much it is worth.
    """
    confidence = np.floor(probabilities.max(1) * _THRESHOLD_DIGITS) / _THRESHOLD_DIGITS
    right = probabilities.argmax(1) == targets
    thresholds, place = np.unique(confidence, return_inverse=True)
    accepted = _from_here_on(np.bincount(place))
    precision = _from_here_on(np.bincount(place, weights=right)) / accepted
    enough = np.flatnonzero(precision >= _WANTED_PRECISION)
    if enough.size:
        first = enough[0]
        return float(thresholds[first]), float(precision[first]), float(accepted[first] / len(targets))
    certain = thresholds[-1] >= 1.0
    return 1.0, float(precision[-1]) if certain else 0.0, float(accepted[-1] / len(targets)) if certain else 0.0


def reference(probabilities: Floats, brightness: Floats, labels: tuple[str, ...]) -> Reference:
    """How validation answers and photos were distributed: top probability and mean pixel, 0 to 255."""
    predicted = np.bincount(probabilities.argmax(1), minlength=len(labels))
    return Reference(
        predicted=dict(zip(labels, predicted.tolist(), strict=True)),
        confidence=_histogram(probabilities.max(1), np.linspace(0, 1, 21)),
        brightness=_histogram(brightness, np.linspace(0, 255, 18)),
    )


def _from_here_on(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Element i is the sum of counts[i:]."""
    return counts[::-1].cumsum()[::-1]


def _histogram(values: Floats, edges: npt.NDArray[np.float64]) -> Histogram:
    rounded = np.round(edges, 6)
    counts, _ = np.histogram(values.clip(rounded[0], rounded[-1]), rounded)  # float32 sums can pass 1 by a hair
    return Histogram(tuple(rounded.tolist()), tuple(counts.tolist()))
