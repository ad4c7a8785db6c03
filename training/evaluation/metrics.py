"""Metrics of classification as functions on arrays, each with the source of its formula."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from bundle.manifest import Calibration, ClassMetrics, Metrics
from bundle.measures import Bin, Confident, TopK, Uncalibrated
from training.evaluation.intervals import bootstrap, wilson

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_POINTS = 100  # of a thinned risk-coverage curve


def measure(
    probabilities: Floats, targets: Ints, labels: tuple[str, ...], calibration: Calibration | None = None
) -> Metrics:
    """All metrics in the manifest for a set of answers: probabilities [N, C], class indices [N], N > 0.

    With the calibration that gave these probabilities, also what they were before it, and what its threshold accepts.
    A class without a photo in the set has recall 0 and support 0, and does not count in macro F1.
    """
    predicted = probabilities.argmax(1)
    table = confusion(predicted, targets, len(labels))
    right = int(np.trace(table))
    confidence, correct = probabilities.max(1), predicted == targets
    curve = risk_coverage(confidence, correct)
    return Metrics(
        n=len(targets),
        top1=right / len(targets),
        top1_interval=wilson(right, len(targets)),
        macro_f1=float(macro_f1(table)),
        negative_log_likelihood=negative_log_likelihood(probabilities, targets),
        expected_calibration_error=calibration_error(probabilities, targets),
        per_class=class_metrics(table, labels),
        confusion=tuple(tuple(row) for row in table.tolist()),
        top_k=top_k(probabilities, targets),
        macro_f1_interval=bootstrap(table, macro_f1),
        brier=brier(probabilities, targets),
        reliability=reliability(probabilities, targets),
        uncalibrated=None if calibration is None else uncalibrated(probabilities, targets, calibration.temperature),
        risk_coverage=thinned(curve),
        aurc=float(curve.mean()),
        confident=None if calibration is None else confident(confidence, correct, calibration.threshold),
    )


def top_k(probabilities: Floats, targets: Ints) -> TopK | None:
    """The true class among the k likeliest: k = 5 from ten classes on, half of fewer, at least 2; None for two."""
    classes = probabilities.shape[1]
    if classes == 2:
        return None
    k = min(5, max(2, classes // 2))
    true = probabilities[np.arange(len(targets)), targets]
    hits = int(((probabilities > true[:, None]).sum(1) < k).sum())
    return TopK(k, hits / len(targets), wilson(hits, len(targets)))


def confusion(predicted: Ints, targets: Ints, classes: int) -> Ints:
    """Counts [C, C]: rows are true classes, columns predicted ones."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_metrics(table: Ints, labels: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and their harmonic mean for each class; 0 where the denominator is 0."""
    rows: list[ClassMetrics] = []
    for index, label in enumerate(labels):
        hits, answered, support = (
            int(count) for count in (table[index, index], table[:, index].sum(), table[index].sum())
        )
        rows.append(
            ClassMetrics(
                label=label,
                precision=hits / answered if answered else 0.0,
                recall=hits / support if support else 0.0,
                f1=2 * hits / (answered + support) if answered + support else 0.0,
                support=support,
                precision_interval=wilson(hits, answered) if answered else None,
                recall_interval=wilson(hits, support) if support else None,
            )
        )
    return tuple(rows)


def macro_f1(tables: Ints) -> npt.NDArray[np.float64]:
    """Mean F1 of the classes that have photos, of each of the confusion tables [..., C, C] with a photo."""
    hits = np.diagonal(tables, axis1=-2, axis2=-1)
    support = tables.sum(-1)
    f1 = 2 * hits / np.maximum(tables.sum(-2) + support, 1)
    mean: npt.NDArray[np.float64] = (f1 * (support > 0)).sum(-1) / (support > 0).sum(-1)
    return mean


def uncalibrated(probabilities: Floats, targets: Ints, temperature: float) -> Uncalibrated:
    """The same answers without their temperature: as p ∝ exp(logit / T), exp(logit) ∝ p^T."""
    scaled = temperature * np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny))
    bare = softmax(scaled, axis=1)
    return Uncalibrated(
        negative_log_likelihood(bare, targets),
        calibration_error(bare, targets),
        brier(bare, targets),
        reliability(bare, targets),
    )


def negative_log_likelihood(probabilities: Floats, targets: Ints) -> float:
    """Mean of -ln p(true class), in nats; probabilities under 1e-12 count as 1e-12."""
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def brier(probabilities: Floats, targets: Ints) -> float:
    """Mean squared distance between probabilities and the truth as a one-hot row, 0 to 2.

    Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", Mon. Weather Rev. 78.
    """
    squares = np.square(probabilities.astype(np.float64)).sum(1)
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float((squares - 2 * true + 1).mean())


def calibration_error(probabilities: Floats, targets: Ints, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| of equally wide bins, averaged by count (Guo et al. 2017)."""
    return sum(abs(row.accuracy - row.confidence) * row.share for row in reliability(probabilities, targets, bins))


def reliability(probabilities: Floats, targets: Ints, bins: int = 15) -> tuple[Bin, ...]:
    """Each bin (i / bins, (i + 1) / bins] of confidence that has answers (DeGroot & Fienberg 1983)."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == targets
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = [place == index for index in range(bins)]
    return tuple(
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean()))
        for inside in found
        if inside.any()
    )


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
