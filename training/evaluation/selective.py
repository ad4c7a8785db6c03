"""Answering only when sure: what abstaining below a confidence costs in answers and saves in mistakes."""

import numpy as np
import numpy.typing as npt

from bundle.measures import Confident
from training.evaluation.intervals import wilson

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

_POINTS = 100


def risk_coverage(confidence: Floats, correct: Flags) -> npt.NDArray[np.float64]:
    """Risk at the coverages 1/N, 2/N … 1, float64 [N]: the share of mistakes among the surest answers.

    Its mean is the area under the risk-coverage curve, AURC (Geifman, Uziel & El-Yaniv 2019, "Bias-Reduced Uncertainty
    Estimation"). Equally sure answers are accepted together, so that their order does not matter.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    risk = np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)
    last = np.searchsorted(-sure, -sure, side="right") - 1
    found: npt.NDArray[np.float64] = risk[last]
    return found


def thinned(risk: npt.NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """(coverage, risk) at about a hundred evenly spaced coverages, for records and charts."""
    n = len(risk)
    places = np.unique(np.ceil(np.arange(1, _POINTS + 1) * n / _POINTS).astype(int))
    return tuple((float(place / n), float(risk[place - 1])) for place in places)


def confident(confidence: Floats, correct: Flags, threshold: float) -> Confident:
    """Precision and coverage of the answers from the threshold on."""
    accepted = confidence >= threshold
    answered, right = int(accepted.sum()), int(correct[accepted].sum())
    if not answered:
        return Confident(threshold, 0.0, None, 0.0)
    return Confident(threshold, right / answered, wilson(right, answered), answered / len(confidence))
