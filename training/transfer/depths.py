"""Features of a network after several of its blocks, computed in one pass a photo."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.dataset.data import Photo
from training.inference.batches import Floats, torch_infer
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter
from training.runs.context import RunContext
from training.transfer import features

_MAX_DEPTHS = 8
_MAX_PHOTOS = 2000  # more hardly move a score and cost memory and time


def chosen_depths(blocks: int) -> tuple[int, ...]:
    """At most eight numbers of blocks, evenly spaced; the last one is all of them."""
    count = min(blocks, _MAX_DEPTHS)
    return tuple(round(blocks * (index + 1) / count) for index in range(count))


def sample(photos: Sequence[Photo], most: int = _MAX_PHOTOS) -> list[Photo]:
    """At most about `most` photos, every class in its own share and with two at least; content decides which."""
    if len(photos) <= most:
        return list(photos)
    classes: dict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda photo: hashlib.sha256(photo.digest.encode()).digest()):
        classes[photo.label].append(photo)
    return [photo for found in classes.values() for photo in found[: max(2, len(found) * most // len(photos))]]


def compute(
    model: Classifier, photos: Sequence[Photo], context: RunContext, cache_root: Path, reporter: Reporter
) -> dict[int, Floats]:
    """Number of blocks → pooled features float32 [N, width], from the cache as far as it goes."""
    depths = chosen_depths(len(model.features))
    frozen = folded(model)
    cache = features.cache_for(cache_root, model, context.preprocessing, depths)
    infer = torch_infer(_joined(frozen, depths), frozen)
    rows = features.rows(context.inference(reporter), photos, context.preprocessing, infer, cache)
    ends = np.cumsum(_widths(frozen, depths, context))[:-1]
    return dict(zip(depths, np.split(rows, ends, axis=1), strict=True))


def pooled(model: Classifier, inputs: Tensor, depths: Sequence[int]) -> list[Tensor]:
    """float32 [N, 3, H, W] to the mean over the feature map after each number of blocks, float32 [N, width]."""
    found, value = [], inputs
    for number, block in enumerate(model.features, start=1):
        value = block(value)
        if number in depths:
            found.append(value.flatten(2).mean(2) if value.ndim > 2 else value)
    return found


def _joined(model: Classifier, depths: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda inputs: torch.cat(pooled(model, inputs, depths), 1)


def _widths(model: Classifier, depths: Sequence[int], context: RunContext) -> list[int]:
    side = context.preprocessing.crop
    with torch.inference_mode():
        found = pooled(model, torch.zeros(1, 3, side, side, device=context.device), depths)
    return [part.shape[1] for part in found]
