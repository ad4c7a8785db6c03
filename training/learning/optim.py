"""How weights move: an optimizer with a rate for each block, and how rates rise and fall over the steps."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.config import Recipe
from training.networks.backbones import Classifier


def optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; earlier blocks learn more slowly, norms and biases do not decay."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def parameter_groups(model: Classifier, recipe: Recipe) -> list[dict[str, Any]]:
    """Two groups a block; a block's rate is lr · layer_decay ** (blocks between it and the head, itself counted)."""
    blocks: list[nn.Module] = [model.head, *reversed(model.features)]
    groups = []
    for distance, block in enumerate(blocks):
        for decays in (True, False):
            parameters = [part for part in block.parameters() if (part.ndim > 1) == decays]
            if parameters:
                rate = recipe.lr * recipe.layer_decay**distance
                decay = recipe.weight_decay if decays else 0.0
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return groups


def schedule(adjusted: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> LambdaLR:
    """A linear warm-up, then half a cosine down to 0 at the last step (Loshchilov & Hutter 2017, without restarts)."""
    steps = steps_per_epoch * recipe.epochs
    warmup = min(max(round(recipe.warmup_epochs * steps_per_epoch), 1), steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return LambdaLR(adjusted, factor)
