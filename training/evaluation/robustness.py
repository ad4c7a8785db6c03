"""Measures how much accuracy a model loses on photos of lower quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.preprocessing import Preprocessing
from training.dataset.data import Photo
from training.evaluation.corruptions import CORRUPTIONS, Corrupted
from training.evaluation.intervals import wilson
from training.evaluation.metrics import Ints
from training.inference.batches import BatchInference, Floats, Infer, Parallelism, Prepare
from training.progress import Reporter
from training.runs.records import UnderCorruption


@dataclass(frozen=True)
class EvaluationTask:
    """Labelled photos and the model that answers them; `infer` gives scores [N, C] that rank the classes."""

    root: Path
    photos: Sequence[Photo]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    infer: Infer
    parallelism: Parallelism

    @property
    def targets(self) -> Ints:
        """Class indices [N]."""
        return np.array([self.labels.index(photo.label) for photo in self.photos])

    def answers(self, prepare: Prepare, reporter: Reporter, what: str) -> Floats:
        """float32 [N, C]."""
        inference = BatchInference(self.root, self.parallelism, reporter)
        return inference.run(self.photos, prepare, self.infer, what).outputs


def under_corruptions(task: EvaluationTask, clean: float, reporter: Reporter) -> tuple[UnderCorruption, ...]:
    """One row a corruption, in the order of the table; `clean` is the top-1 on the photos as they are."""
    rows, targets = [], task.targets
    for name in CORRUPTIONS:
        answered = task.answers(Corrupted(task.preprocessing, name), reporter, f"Answering photos under {name}")
        right = int((answered.argmax(1) == targets).sum())
        top1 = right / len(targets)
        rows.append(UnderCorruption(name, top1, wilson(right, len(targets)), clean - top1))
    return tuple(rows)
