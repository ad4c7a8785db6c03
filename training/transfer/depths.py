"""What a network sees after several of its blocks, in one pass a photo: early blocks know edges, late ones objects."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.batch_inference import Floats, torch_infer
from training.dataset.data import Photo
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter
from training.run_context import RunContext
from training.transfer import features

_MOST_DEPTHS = 8
_MOST_PHOTOS = 2000  # more hardly move a score and cost memory and time


def chosen_depths(blocks: int) -> tuple[int, ...]:
    """At most eight numbers of blocks, evenly spaced; the last one is all of them."""
    count = min(blocks, _MOST_DEPTHS)
    return tuple(round(blocks * (index + 1) / count) for index in range(count))


def sample(photos: Sequence[Photo], most: int = _MOST_PHOTOS) -> list[Photo]:
    """At most about `most` photos, every class in its own share and with two at least; content decides which."""
    if len(photos) <= most:
        return list(photos)
    classes: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda photo: hashlib.sha256(photo.digest.encode()).digest()):
        classes[photo.label].append(photo)
    return [photo for found in classes.values() for photo in found[: max(2, len(found) * most // len(photos))]]


def compute(
    model: Classifier, photos: Sequence[Photo], material: RunContext, cache_root: Path, reporter: Reporter
) -> dict[int, Floats]:
    """Number of blocks → pooled features float32 [N, width], from the cache as far as it goes."""
    depths = chosen_depths(len(model.features))
    frozen = folded(model)
    cache = features.cache_for(cache_root, model, material.preprocessing, depths)
    infer = torch_infer(_joined(frozen, depths), frozen)
    rows = features.rows(material.root, photos, material.preprocessing, infer, cache, material.lanes, reporter)
    ends = np.cumsum(_widths(frozen, depths, material))[:-1]
    return dict(zip(depths, np.split(rows, ends, axis=1), strict=True))


def pooled(model: Classifier, pictures: Tensor, depths: Sequence[int]) -> list[Tensor]:
    """float32 [N, 3, H, W] to the mean over the feature map after each number of blocks, float32 [N, width]."""
    found, value = [], pictures
    for number, block in enumerate(model.features, start=1):
        value = block(value)
        if number in depths:
            found.append(value.flatten(2).mean(2) if value.ndim > 2 else value)
    return found


def _joined(model: Classifier, depths: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda pictures: torch.cat(pooled(model, pictures, depths), 1)


def _widths(model: Classifier, depths: Sequence[int], material: RunContext) -> list[int]:
    side = material.preprocessing.crop
    with torch.inference_mode():
        found = pooled(model, torch.zeros(1, 3, side, side, device=material.device), depths)
    return [part.shape[1] for part in found]
