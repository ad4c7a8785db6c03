"""Photos that are nearly the same: re-encoded, resized, slightly changed, or taken a moment apart."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from bundle.preprocessing import Pixels, decode
from training.progress import Reporter
from training.suspects.neighbours import Floats, nearest, unit

_SIDE = 16
_SAME_PHOTO = 0.98  # correlation of thumbnails; of the flower photos, unrelated pairs stay under 0.92
_SAME_SCENE = 0.93, 0.6  # cosine of features together with this correlation: a crop, or the next shot of a series
_NEIGHBOURS = 5  # compared in each space


@dataclass(frozen=True)
class Pair:
    """Two rows, the correlation of their thumbnails and the cosine of their features; 1 means equal."""

    first: int
    second: int
    correlation: float
    cosine: float


def thumbnail(data: bytes) -> Pixels:
    """uint8 [16, 16, 3] of the whole photo, whatever its shape. Raises `ImageRefused`."""
    return np.asarray(decode(data).resize((_SIDE, _SIDE), Image.Resampling.BOX))


def without_tint(thumbnails: Pixels) -> Floats:
    """uint8 [N, 16, 16, 3] to rows of length 1 whose products are correlations; plain photos become 0."""
    pixels = thumbnails.astype(np.float32)
    return unit((pixels - pixels.mean((1, 2), keepdims=True)).reshape(len(pixels), -1))


def pairs(features: Floats, thumbnails: Floats, reporter: Reporter) -> list[Pair]:
    """The most alike first; features [N, D] and thumbnails [N, T] have rows of length 1."""
    found = {
        (min(row, other), max(row, other))
        for space, what in ((thumbnails, "Comparing thumbnails"), (features, "Comparing features"))
        for row, others in enumerate(nearest(space, _NEIGHBOURS, reporter, what).rows.tolist())
        for other in others
    }
    alike = (_pair(first, second, features, thumbnails) for first, second in sorted(found))
    return sorted(filter(_nearly_same, alike), key=lambda pair: (-pair.correlation, -pair.cosine))


def _pair(first: int, second: int, features: Floats, thumbnails: Floats) -> Pair:
    correlation, cosine = (float(space[first] @ space[second]) for space in (thumbnails, features))
    return Pair(first, second, correlation, cosine)


def _nearly_same(pair: Pair) -> bool:
    cosine, correlation = _SAME_SCENE
    return pair.correlation >= _SAME_PHOTO or (pair.cosine >= cosine and pair.correlation >= correlation)
