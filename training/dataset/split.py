"""Splits photos into training, validation and test, or into folds, by their content alone.

Adding or removing photos moves no other photo between parts, and copies of one photo always share a part.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from training.dataset.data import Photo, fingerprint
from training.errors import TooFewPhotos

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)

_VAL_FROM, _TEST_FROM = 0.8, 0.9
_SEEDS_TO_TRY = 1000
_SURELY_ENOUGH = 400  # photos: 0.9**400 is 5e-19, so larger classes need no search


@dataclass(frozen=True)
class Placed:
    """A photo of the run and the part that it belongs to."""

    path: str
    label: str
    digest: str
    part: Part


@dataclass(frozen=True)
class Split:
    """The record written as `split.json`; `labels` are in output order."""

    seed: int
    fingerprint: str
    labels: tuple[str, ...]
    photos: tuple[Placed, ...]

    def part(self, name: Part) -> tuple[Photo, ...]:
        """The photos of one part, in order of path."""
        return tuple(Photo(photo.path, photo.label, photo.digest) for photo in self.photos if photo.part == name)

    def targets(self, photos: Sequence[Photo]) -> list[int]:
        """Class index of each photo."""
        index = {label: position for position, label in enumerate(self.labels)}
        return [index[photo.label] for photo in photos]


def place(digest: str, seed: int) -> Part:
    """80/10/10 by a uniform number in [0, 1) that SHA-256 makes of seed and content."""
    salted = hashlib.sha256(f"{seed}:{digest}".encode()).digest()
    uniform = int.from_bytes(salted[:8], "big") / 2**64
    if uniform < _VAL_FROM:
        return "train"
    return "val" if uniform < _TEST_FROM else "test"


def split(photos: Sequence[Photo], seed: int) -> Split:
    """Place every photo; each class is split by the same shares. Raises `TooFewPhotos` where a part gets none."""
    digests: dict[str, list[str]] = defaultdict(list)
    for photo in photos:
        digests[photo.label].append(photo.digest)
    for label, found in sorted(digests.items()):
        for missing in _missing(found, seed):
            raise TooFewPhotos(label, len(found), missing, seed, usable_seed(digests.values()))
    placed = tuple(Placed(photo.path, photo.label, photo.digest, place(photo.digest, seed)) for photo in photos)
    return Split(seed, fingerprint(photos), tuple(sorted(digests)), placed)


def usable_seed(classes: Iterable[Sequence[str]]) -> int | None:
    """The first seed under which every class (its content digests) has a photo in each part, among the first 1,000."""
    scarce = sorted((digests for digests in classes if len(digests) < _SURELY_ENOUGH), key=len)
    if scarce and len(scarce[0]) < len(PARTS):
        return None
    return next((seed for seed in range(_SEEDS_TO_TRY) if not any(_missing(found, seed) for found in scarce)), None)


def _missing(digests: Sequence[str], seed: int) -> list[Part]:
    present = {place(digest, seed) for digest in digests}
    return [part for part in PARTS if part not in present]


def assign_folds(photos: Sequence[Photo], folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """The fold of each photo, 0 to `folds` - 1, int64 [N].

    Each class is dealt out in the order of a hash of its contents, so that its folds differ by one photo at most.
    """
    classes: dict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        classes[photo.label].append(index)
    found = np.zeros(len(photos), np.int64)
    start = 0
    for _, members in sorted(classes.items()):
        ordered = sorted(members, key=lambda index: _fold_order(photos[index].digest, seed))
        found[ordered] = (start + np.arange(len(ordered))) % folds
        start += len(ordered)  # so that small classes do not all leave the last folds empty
    return found


def _fold_order(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"fold:{seed}:{digest}".encode()).digest()
