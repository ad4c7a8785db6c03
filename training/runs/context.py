"""What the stages of a run work with, put together once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bundle.preprocessing import Preprocessing
from training.config import Machine, Recipe
from training.dataset.data import Photo
from training.dataset.decoded import Stored
from training.dataset.split import Part, Split
from training.inference.batches import Answers, BatchInference, Parallelism, torch_infer
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter


@dataclass(frozen=True)
class RunContext:
    """Photos, split, preprocessing and device."""

    root: Path
    split: Split
    preprocessing: Preprocessing
    device: torch.device
    parallelism: Parallelism
    stored: Stored | None = None  # training photos ready decoded, for the loop alone

    def photos(self, part: Part) -> tuple[Photo, ...]:
        return self.split.part(part)

    def targets(self, part: Part) -> torch.Tensor:
        """Class indices int64 [N]."""
        return torch.tensor(self.split.targets(self.split.part(part)), dtype=torch.int64)

    def logits(self, model: Classifier, part: Part, reporter: Reporter) -> Answers:
        """The model's answers to a part in float32, on pixels as the service would preprocess them."""
        return self.answers(model, self.photos(part), reporter, f"Answering {part} photos")

    def answers(self, model: Classifier, photos: Sequence[Photo], reporter: Reporter, task: str) -> Answers:
        """The same for any photos, at least one; the progress bar names the task."""
        frozen = folded(model)
        return self.inference(reporter).run(photos, self.preprocessing, torch_infer(frozen, frozen), task)

    def inference(self, reporter: Reporter) -> BatchInference:
        return BatchInference(self.root, self.parallelism, reporter)


@dataclass(frozen=True)
class TrainingSession:
    """One training of a run: what the strategy, the head's fit, the rate finder and the loop all need."""

    context: RunContext
    recipe: Recipe
    machine: Machine
    folder: Path  # of the run: checkpoint, curves and rate
    feature_cache: Path
    reporter: Reporter
    pretrained: bool  # whether the model starts from pretrained weights
