"""The networks that can stand under a new head, and the head itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchvision import models

from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import baselines, blocks, initial


@dataclass(frozen=True)
class Backbone:
    """One row of the table: everything that differs between networks."""

    build: Callable[..., nn.Module]  # the published classifier, in random weights; mobilenet_v2 also with `width_mult`
    features: Callable[[Any], nn.Sequential]  # its part from photo to feature map, block by block
    weights_url: str | None  # published ImageNet weights; the name carries the first digits of the file's SHA-256
    smallest: int = 32  # px; the side of the smallest photo that leaves something to pool


# Of two published sets of weights the first is taken: the longer trained second one of mobilenet_v2 transfers no better
# without fine-tuning. Of vgg16 and alexnet only the convolutions are used: their dense layers, most of their weights,
# know one size of photo only, and leave no map behind.
BACKBONES = {
    "mobilenet_v2": Backbone(models.mobilenet_v2, blocks.flat, models.MobileNet_V2_Weights.IMAGENET1K_V1.url),
    "mobilenet_v3_small": Backbone(
        models.mobilenet_v3_small, blocks.flat, models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.url
    ),
    "mobilenet_v3_large": Backbone(
        models.mobilenet_v3_large, blocks.flat, models.MobileNet_V3_Large_Weights.IMAGENET1K_V1.url
    ),
    "efficientnet_b0": Backbone(models.efficientnet_b0, blocks.flat, models.EfficientNet_B0_Weights.IMAGENET1K_V1.url),
    "resnet18": Backbone(models.resnet18, blocks.of_resnet, models.ResNet18_Weights.IMAGENET1K_V1.url),
    "resnet50": Backbone(models.resnet50, blocks.of_resnet, models.ResNet50_Weights.IMAGENET1K_V1.url),
    "convnext_tiny": Backbone(models.convnext_tiny, blocks.of_convnext, models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1.url),
    "vgg16": Backbone(models.vgg16, blocks.by_convolution, models.VGG16_Weights.IMAGENET1K_V1.url),
    "alexnet": Backbone(models.alexnet, blocks.by_convolution, models.AlexNet_Weights.IMAGENET1K_V1.url, smallest=63),
    "small_cnn": Backbone(baselines.small_cnn, blocks.as_built, None),
    "mlp": Backbone(baselines.mlp, blocks.as_built, None),
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

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.pooled(inputs)))
        return logits

    def pooled(self, inputs: Tensor) -> Tensor:
        """float32 [N, 3, H, W] to the head's input, float32 [N, width]."""
        return self.features(inputs).mean((2, 3))  # type: ignore[no-any-return]  # Sequential returns Any


def channels(features: nn.Sequential) -> int:
    """Of the map that `features` make: every network here ends in a layer with a value for each of them."""
    *_, last = features.parameters()
    return len(last)


def truncated(model: Classifier, blocks: int, recipe: Recipe) -> Classifier:
    """The first `blocks` blocks of `model`, shared with it, and a head drawn anew for as many classes.

    Raises `RecipeInvalid`.
    """
    if not 1 <= blocks <= len(model.features):
        raise RecipeInvalid("keep_blocks", blocks, f"1 to {len(model.features)}, the blocks of {recipe.backbone}")
    features = model.features[:blocks]
    assert isinstance(features, nn.Sequential)
    shorter = Classifier(features, channels(features), model.head.out_features, model.dropout.p)
    shorter.to(model.head.weight.device)
    initial.draw(shorter.head, recipe)
    return shorter
