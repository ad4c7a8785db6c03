"""Photos that are like no other: another subject, a drawing, a broken exposure."""

import numpy as np

from training.evaluation.suspects.neighbours import Floats, Ints, nearest
from training.progress import Reporter

_NEIGHBOURS = 10
_FENCE = 3  # interquartile ranges; Tukey 1977, "Exploratory Data Analysis", calls what is beyond "far out"


def outliers(features: Floats, reporter: Reporter) -> tuple[Ints, Floats]:
    """Rows far from all others, the farthest first, and of every row how many interquartile ranges it is out [N].

    The distance is the mean to the ten nearest in standardised features [N, D] (after Ramaswamy, Rastogi & Shim 2000,
    "Efficient Algorithms for Mining Outliers"). Features from half-way up a network serve best: the last ones know only
    what the classes are told by, and find a picture of noise quite usual.
    """
    scale = features.std(0)
    standard = (features - features.mean(0)) / np.where(scale > 1e-6 * scale.max(), scale, np.inf)
    distances = nearest(standard, _NEIGHBOURS, reporter, "Looking for outliers").distances.mean(1)
    low, high = np.quantile(distances, [0.25, 0.75])
    out: Floats = (distances - high) / max(high - low, 1e-6 * high, 1e-12)
    rows = np.flatnonzero(out > _FENCE)
    return rows[np.argsort(-out[rows], kind="stable")], out
