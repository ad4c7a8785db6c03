"""What every stage of a run works on, put together once: photos, split, preprocessing and machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bundle.preprocessing import Preprocessing
from training.batch_inference import Answers, Lanes, answer_all, torch_infer
from training.dataset.data import Photo
from training.dataset.decoded import Stored
from training.dataset.split import Part, Split
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter


@dataclass(frozen=True)
class RunContext:
    root: Path
    split: Split
    preprocessing: Preprocessing
    device: torch.device
    lanes: Lanes
    stored: Stored | None = None  # training photos ready decoded, for the loop alone

    def photos(self, part: Part) -> tuple[Photo, ...]:
        return self.split.part(part)

    def targets(self, part: Part) -> torch.Tensor:
        """Class indices int64 [N]."""
        return torch.tensor(self.split.targets(self.split.part(part)), dtype=torch.int64)

    def logits(self, model: Classifier, part: Part, reporter: Reporter) -> Answers:
        """What the model says of a part in float32, exactly as the service would preprocess it."""
        return self.answers(model, self.photos(part), reporter, f"Answering {part} photos")

    def answers(self, model: Classifier, photos: Sequence[Photo], reporter: Reporter, what: str) -> Answers:
        """The same for any photos, at least one; `what` is done meanwhile."""
        frozen = folded(model)
        infer = torch_infer(frozen, frozen)
        return answer_all(self.root, photos, self.preprocessing, infer, self.lanes, reporter, what)
