"""Equal parts of a set of photos, each of which is held out once; decided by content and class alone."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from training.dataset.data import Photo
from training.evaluation.metrics import Ints


def assign(photos: Sequence[Photo], folds: int, seed: int = 0) -> Ints:
    """The fold of each photo, 0 to `folds` - 1, int64 [N].

    Each class is dealt out in the order of a hash of its contents, so that its folds differ by one photo at most.
    """
    classes: dict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        classes[photo.label].append(index)
    found = np.zeros(len(photos), np.int64)
    start = 0
    for _, members in sorted(classes.items()):
        ordered = sorted(members, key=lambda index: _order(photos[index].digest, seed))
        found[ordered] = (start + np.arange(len(ordered))) % folds
        start += len(ordered)  # so that small classes do not all leave the last folds empty
    return found


def _order(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"fold:{seed}:{digest}".encode()).digest()
