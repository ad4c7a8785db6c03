"""How good a set of answers is: plain functions on arrays, each with the source of its formula."""

import math

import numpy as np
import numpy.typing as npt

from bundle.manifest import ClassMetrics, Metrics

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

_Z95 = 1.959963984540054  # the standard normal quantile of 0.975


def measure(probabilities: Floats, targets: Ints, labels: tuple[str, ...]) -> Metrics:
    """Everything the manifest says of a set of answers: probabilities [N, C], class indices [N], N > 0.

    A class without a photo in the set has recall 0 and support 0, and does not count in macro F1.
    """
    predicted = probabilities.argmax(1)
    table = confusion(predicted, targets, len(labels))
    per_class = class_metrics(table, labels)
    right = int(np.trace(table))
    present = [row.f1 for row in per_class if row.support]
    return Metrics(
        n=len(targets),
        top1=right / len(targets),
        top1_interval=wilson(right, len(targets)),
        macro_f1=sum(present) / len(present),
        negative_log_likelihood=negative_log_likelihood(probabilities, targets),
        expected_calibration_error=calibration_error(probabilities, targets),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in table.tolist()),
    )


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, "Probable Inference…", J. Am. Stat. Assoc. 22)."""
    share, z2 = right / n, _Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(center - half, 0.0), min(center + half, 1.0)


def confusion(predicted: Ints, targets: Ints, classes: int) -> Ints:
    """Counts [C, C]: rows are true classes, columns predicted ones."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_metrics(table: Ints, labels: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and their harmonic mean for each class; 0 where the denominator is 0."""
    rows = []
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
            )
        )
    return tuple(rows)


def negative_log_likelihood(probabilities: Floats, targets: Ints) -> float:
    """Mean of -ln p(true class), in nats; probabilities under 1e-12 count as 1e-12."""
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def calibration_error(probabilities: Floats, targets: Ints, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| of equally wide bins, averaged by count (Guo et al. 2017)."""
    return sum(
        abs(accuracy - confidence) * share for confidence, accuracy, share in reliability(probabilities, targets, bins)
    )


def reliability(probabilities: Floats, targets: Ints, bins: int = 15) -> list[tuple[float, float, float]]:
    """(mean confidence, accuracy, share of answers) of each bin (i / bins, (i + 1) / bins] that has answers."""
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == targets
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = [place == index for index in range(bins)]
    return [
        (float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean()))
        for inside in found
        if inside.any()
    ]
