"""The early part of a network under a new head: for data unlike what the late part was trained on."""

from torch import nn

from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import initial
from training.networks.backbones import Classifier, channels


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
