"""How much of its accuracy a model keeps when pictures get worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.preprocessing import Preprocessing
from training.batch_inference import Floats, Infer, Lanes, Prepare, answer_all
from training.dataset.data import Photo
from training.evaluation.corruptions import CORRUPTIONS, Corrupted
from training.evaluation.intervals import wilson
from training.evaluation.metrics import Ints
from training.progress import Reporter


@dataclass(frozen=True)
class UnderCorruption:
    """Top-1 on the same photos, each made worse in one way."""

    corruption: str
    top1: float
    top1_interval: tuple[float, float]  # 95 %, Wilson
    lost: float  # top-1 on the clean photos less this one


@dataclass(frozen=True)
class Exam:
    """Photos whose classes are known, and what answers them; `infer` gives numbers [N, C] that rank the classes."""

    root: Path
    photos: Sequence[Photo]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    infer: Infer
    lanes: Lanes

    @property
    def targets(self) -> Ints:
        """Class indices [N]."""
        return np.array([self.labels.index(photo.label) for photo in self.photos])

    def answers(self, prepare: Prepare, reporter: Reporter, what: str) -> Floats:
        """float32 [N, C]."""
        return answer_all(self.root, self.photos, prepare, self.infer, self.lanes, reporter, what).outputs


def under_corruptions(exam: Exam, clean: float, reporter: Reporter) -> tuple[UnderCorruption, ...]:
    """One row a corruption, in the order of the table; `clean` is the top-1 on the photos as they are."""
    rows, targets = [], exam.targets
    for name in CORRUPTIONS:
        answered = exam.answers(Corrupted(exam.preprocessing, name), reporter, f"Answering photos under {name}")
        right = int((answered.argmax(1) == targets).sum())
        top1 = right / len(targets)
        rows.append(UnderCorruption(name, top1, wilson(right, len(targets)), clean - top1))
    return tuple(rows)
