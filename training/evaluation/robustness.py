"""How much of its accuracy a model keeps when photos get worse."""

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
class Exam:
    """Photos whose classes are known, and what answers them; `infer` gives numbers [N, C] that rank the classes."""

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

    def answers(self, prepare: Prepare, reporter: Reporter, task: str) -> Floats:
        """float32 [N, C]."""
        inference = BatchInference(self.root, self.parallelism, reporter)
        return inference.run(self.photos, prepare, self.infer, task).outputs


def under_corruptions(exam: Exam, clean: float, reporter: Reporter) -> tuple[UnderCorruption, ...]:
    """One row a corruption, in the order of the table; `clean` is the top-1 on the photos as they are."""
    rows, targets = [], exam.targets
    for name in CORRUPTIONS:
        answered = exam.answers(Corrupted(exam.preprocessing, name), reporter, f"Answering photos under {name}")
        right = int((answered.argmax(1) == targets).sum())
        top1 = right / len(targets)
        rows.append(UnderCorruption(name, top1, wilson(right, len(targets)), clean - top1))
    return tuple(rows)
