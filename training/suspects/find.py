"""Finds suspicious photos with the features of a network that was not trained on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bundle.preprocessing import Preprocessing
from training.dataset.data import Photo
from training.dataset.split import Part, assign_folds
from training.evaluation.metrics import Ints
from training.inference.batches import BatchInference, Parallelism, torch_infer
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter
from training.suspects import copies, labels
from training.suspects.neighbours import Floats, outliers, unit
from training.suspects.records import Copy, InspectedPhoto, LabelSuspect, Outlier, Suspects
from training.transfer import depths, features

MIN_FOLDS = 3  # one is held out, one chooses, the rest train


@dataclass(frozen=True)
class InspectedSet:
    """The photos, at least two, and how they are preprocessed and computed."""

    of: str
    root: Path
    labels: tuple[str, ...]
    photos: Sequence[Photo]
    parts: Sequence[Part]  # of the split, one a photo
    preprocessing: Preprocessing
    parallelism: Parallelism
    cache: Path  # folder of feature caches

    @property
    def targets(self) -> Ints:
        """Class indices [N]."""
        places = {label: place for place, label in enumerate(self.labels)}
        return np.array([places[photo.label] for photo in self.photos])

    @property
    def seen(self) -> list[InspectedPhoto]:
        return [
            InspectedPhoto(photo.path, photo.label, part) for photo, part in zip(self.photos, self.parts, strict=True)
        ]

    def inference(self, reporter: Reporter) -> BatchInference:
        return BatchInference(self.root, self.parallelism, reporter)


def find(subject: InspectedSet, model: Classifier, count: int, reporter: Reporter) -> Suspects:
    """Doubtful labels by `count` folds, near-duplicates and outliers. Raises `PhotoChanged`."""
    early, late = _features(subject, model, reporter)
    found = _labels(subject, late, count)
    pairs = copies.pairs(unit(late), _small(subject, reporter), reporter)
    far, scores = outliers(early, reporter)
    seen = subject.seen
    return Suspects(
        subject.of,
        len(seen),
        tuple(found),
        tuple(Copy(seen[pair.first], seen[pair.second], pair.correlation, pair.cosine) for pair in pairs),
        tuple(Outlier(seen[row], float(scores[row])) for row in far),
    )


def _labels(subject: InspectedSet, late: Floats, count: int) -> list[LabelSuspect]:
    targets, seen = subject.targets, subject.seen
    probabilities = labels.out_of_fold(late, targets, assign_folds(subject.photos, count), len(subject.labels))
    rows, others = labels.suspected(probabilities, targets, fewest=count)
    return [
        LabelSuspect(
            seen[row],
            subject.labels[other],
            float(probabilities[row, targets[row]]),
            float(probabilities[row, other]),
        )
        for row, other in zip(rows.tolist(), others.tolist(), strict=True)
    ]


def _features(subject: InspectedSet, model: Classifier, reporter: Reporter) -> tuple[Floats, Floats]:
    """Pooled features float32 [N, D] after half of the blocks, and after all."""
    frozen = folded(model)
    blocks = len(frozen.features)
    chosen = (max(blocks // 2, 1), blocks)
    cache = features.cache_for(subject.cache, model, subject.preprocessing, chosen)
    infer = torch_infer(lambda inputs: torch.cat(_both(frozen, inputs, chosen), 1), frozen)
    rows = features.rows(subject.inference(reporter), subject.photos, subject.preprocessing, infer, cache)
    late = model.head.in_features
    return rows[:, :-late], rows[:, -late:]


def _both(model: Classifier, inputs: torch.Tensor, chosen: tuple[int, int]) -> list[torch.Tensor]:
    found = depths.pooled(model, inputs, chosen)
    return [found[0], found[-1]]


def _small(subject: InspectedSet, reporter: Reporter) -> Floats:
    """The photos' thumbnails as rows of length 1."""
    inference = subject.inference(reporter)
    return inference.run(subject.photos, copies.thumbnail, copies.without_tint, "Shrinking photos").outputs
