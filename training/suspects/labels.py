"""Photos that are probably mislabelled, by the out-of-fold predictions of a linear head."""

import numpy as np
import torch

from training.evaluation.calibrate import softmax
from training.evaluation.metrics import Floats, Ints
from training.transfer import head
from training.transfer.head import Examples

_SURE = 0.9


def out_of_fold(features: Floats, targets: Ints, folds: Ints, classes: int) -> Floats:
    """Probabilities [N, C] of each photo by a linear head on frozen features [N, D] that was fitted without it.

    The next fold chooses the head's regularisation, so that the photo's own fold decides nothing. Needs three folds.
    """
    rows, labels = torch.from_numpy(features), torch.from_numpy(targets)
    found = np.zeros((len(targets), classes))
    count = int(folds.max()) + 1
    for fold in range(count):
        held, choosing = folds == fold, folds == (fold + 1) % count
        parts = [torch.from_numpy(np.flatnonzero(chosen)) for chosen in (~held & ~choosing, choosing)]
        train, val = (Examples(rows[part], labels[part]) for part in parts)
        fitted = head.fit(train, val, classes, 0.0)
        found[held] = softmax((rows[torch.from_numpy(held)] @ fitted.weight.T + fitted.bias).numpy(), 1.0)
    return found


def suspected(probabilities: Floats, targets: Ints, fewest: int) -> tuple[Ints, Ints]:
    """Rows whose label is doubtful, the most doubtful first, and the class that each seems to be.

    Confident learning (Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"):
    a photo counts as class j when p(j) reaches the mean p(j) of the photos labelled j, and is suspected where the
    likeliest such class is not its label. Here p(j) = 0.9 always suffices, or else a model that is all but certain of
    the others would let a clear case pass. They are ordered by p(label) - p(that class). Classes of under `fewest`
    photos are left out: a model that hardly saw them cannot judge.
    """
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    usual = np.full(len(counts), np.inf)
    for label in np.flatnonzero(counts >= fewest):
        usual[label] = min(probabilities[targets == label, label].mean(), _SURE)
    passing = np.where(probabilities >= usual, probabilities, -1.0)
    likeliest = passing.argmax(1)
    doubtful = (passing.max(1) >= 0) & (likeliest != targets) & (counts[targets] >= fewest)
    rows = np.flatnonzero(doubtful)
    margin = probabilities[rows, targets[rows]] - probabilities[rows, likeliest[rows]]
    rows = rows[np.argsort(margin, kind="stable")]
    return rows, likeliest[rows]
