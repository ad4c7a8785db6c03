"""The networks that can stand under a new head, and the head itself."""

from collections.abc import Callable
from dataclasses import dataclass

import torchvision
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights


@dataclass(frozen=True)
class Backbone:
    """One row of the table: everything that differs between networks."""

    build: Callable[[], nn.Module]  # the published classifier, in random weights
    features: Callable[[nn.Module], nn.Sequential]  # its part from picture to feature map, block by block
    width: int  # channels of the last feature map
    weights_url: str  # published ImageNet weights; the name carries the first digits of the file's SHA-256


BACKBONES = {
    "mobilenet_v2": Backbone(
        build=lambda: torchvision.models.mobilenet_v2(weights=None),
        features=lambda network: _sequential(network, "features"),
        width=1280,
        # The first of torchvision's two sets: its longer trained second one transfers no better without fine-tuning.
        weights_url=MobileNet_V2_Weights.IMAGENET1K_V1.url,
    ),
}


class Classifier(nn.Module):
    """Backbone, mean over the feature map, dropout, one linear layer.

    Takes float32 [N, 3, H, W] as `augment.normalized` gives it; returns logits float32 [N, C].
    """

    def __init__(self, features: nn.Sequential, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.pooled(pictures)))
        return logits

    def pooled(self, pictures: Tensor) -> Tensor:
        """float32 [N, 3, H, W] to the head's input, float32 [N, width]."""
        return self.features(pictures).mean((2, 3))  # type: ignore[no-any-return]  # Sequential returns Any


def _sequential(network: nn.Module, name: str) -> nn.Sequential:
    features = network.get_submodule(name)
    assert isinstance(features, nn.Sequential)
    return features
