"""Similarity of a set of photos to the source data: how well pretrained features separate the classes.

The features of each depth get two scores, both on held-out photos: a linear probe, which a new head could reach, and
k nearest neighbours, which tell whether the classes form clusters.
"""

import numpy as np
import numpy.typing as npt

from training.runs.records import Depth, Similarity

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

_STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # of the penalty, against the mean variance of a direction
_NEIGHBOURS = 5
_FOLDS = 5


def measure(features: dict[int, Floats], targets: Ints) -> Similarity:
    """Score features [N, width] of each number of blocks against class indices [N], N > 1."""
    depths = tuple(
        Depth(blocks, linear_score(rows, targets), knn_score(rows, targets))
        for blocks, rows in sorted(features.items())
    )
    return Similarity(len(targets), float(np.bincount(targets).max()) / len(targets), depths)


def folds(targets: Ints) -> Ints:
    """Fold of each photo, [N]: equal shares of every class in each, since leaving out one class's photos would make it
    look rarer than it is. Neighbours in order stay together, for photos of one scene often stand side by side.
    """
    found = np.zeros(len(targets), np.int64)
    counts = np.bincount(targets)
    count = min(_FOLDS, max(int(counts[counts > 0].min()), 2))
    for label in np.flatnonzero(counts):
        found[targets == label] = (np.arange(counts[label]) * count // counts[label] + label) % count
    return found


def linear_score(features: Floats, targets: Ints) -> float:
    """Share of held-out photos that ridge regression on one-hot labels answers rightly.

    Holding out needs no refitting: the residuals of a fold are (I - H)⁻¹ e, with H its block of the hat matrix and e
    its residuals when all photos are fitted (Allen 1974, the PRESS statistic, for more than one at a time). The
    strength is the one with the least squared error of that kind.
    """
    wanted = np.eye(int(targets.max()) + 1)[targets]
    basis, shares = _principal(features)
    trials = (_held_out(basis, shares, wanted, folds(targets), strength) for strength in _STRENGTHS)
    residuals = min(trials, key=lambda found: float((found**2).sum()))
    answers = np.round(wanted - residuals, 9)  # else features without any information would answer by rounding errors
    return float((answers.argmax(1) == targets).mean())


def knn_score(features: Floats, targets: Ints) -> float:
    """Share of photos whose five nearest in the other folds, by cosine of centred features, mostly have their class.

    A tie goes to the nearer side.
    """
    centred = features - features.mean(0)
    rows = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    fold = folds(targets)
    cosines = np.where(fold[:, None] == fold, -np.inf, rows @ rows.T)
    count = min(_NEIGHBOURS, len(targets) - int(np.bincount(fold).max()))
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    votes, every = np.zeros((len(targets), int(targets.max()) + 1)), np.arange(len(targets))
    for column in nearest.T:
        votes[every, targets[column]] += 1 + cosines[every, column] / 100  # so little that it only decides ties
    return float((votes.argmax(1) == targets).mean())


def _principal(features: Floats) -> tuple[Floats, Floats]:
    """Orthonormal columns [N, r] of the centred features, and the share of all variance along each."""
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    basis, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    variances = lengths**2 / len(features)
    real = variances > 1e-12 * max(float(variances.max()), 1e-12)
    return basis[:, real], variances[real] / max(float(variances.sum()), 1e-12)


def _held_out(basis: Floats, shares: Floats, wanted: Floats, fold: Ints, strength: float) -> Floats:
    """Residuals [N, C] of each photo's label under the fit on the other folds."""
    kept = shares / (shares + strength / max(len(shares), 1))
    centred = wanted - wanted.mean(0)
    residuals = centred - basis @ (kept[:, None] * (basis.T @ centred))
    found: Floats = np.empty_like(residuals)
    for part in np.unique(fold):
        inside = fold == part
        hat = 1 / len(wanted) + (basis[inside] * kept) @ basis[inside].T
        found[inside] = np.linalg.solve(np.eye(len(hat)) - hat, residuals[inside])
    return found
