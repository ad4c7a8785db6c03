"""Decides whether batch norms follow the training batches or keep the statistics of the pretrained weights."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.config import Recipe
from training.errors import RecipeInvalid

FEW_PHOTOS = 1000


def frozen(recipe: Recipe, photos: int, pretrained: bool) -> bool:
    """Whether a training on that many photos keeps the statistics. Raises `RecipeInvalid`.

    'auto' keeps them below 1,000 training photos, a rule of thumb: that is some thirty batches of 32 an epoch, whose
    means and variances are noise beside those of the 1.28 million photos that the pretrained weights come from. Random
    weights have no statistics to keep: without those of the batches their norms would do nothing.
    """
    if recipe.batch_norm == "frozen" and not pretrained:
        raise RecipeInvalid("batch_norm", "frozen", "auto or train with random weights, which have no statistics yet")
    if recipe.batch_norm == "auto":
        return pretrained and photos < FEW_PHOTOS
    return recipe.batch_norm == "frozen"


def train_mode(model: nn.Module, frozen: bool) -> None:
    """`model.train()`, but for the statistics of batch norms where they are frozen; call it before each step.

    Their scale and shift are learned either way. Parts whose parameters are all fixed stay in eval mode: their norms
    follow no batch and their dropout drops nothing.
    """
    model.train()
    if frozen:
        freeze_statistics(model)
    if not all(parameter.requires_grad for parameter in model.parameters()):
        _rest_where_fixed(model)


def freeze_statistics(model: nn.Module) -> None:
    """Put all batch norms into eval mode: they use their running statistics and leave them as they are."""
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def _rest_where_fixed(model: nn.Module) -> None:
    for part in model.modules():
        learned = [parameter.requires_grad for parameter in part.parameters()]
        if learned and not any(learned):
            part.eval()
