"""How weights move: an optimizer with a rate for each block, and what happens at one step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import softshrink

from training.config import Recipe
from training.networks.backbones import Classifier


def optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW or RMSprop over the weights that are not frozen.

    Earlier blocks learn more slowly; norms and biases do not decay.
    """
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=recipe.momentum)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def parameter_groups(model: Classifier, recipe: Recipe) -> list[dict[str, Any]]:
    """At most two groups a block, the head's first; frozen weights are in none.

    A block's rate is lr · layer_decay ** (blocks between it and the head, itself counted).
    """
    blocks: list[nn.Module] = [model.head, *reversed(model.features)]
    groups = []
    for distance, block in enumerate(blocks):
        for decays in (True, False):
            parameters = [part for part in block.parameters() if part.requires_grad and (part.ndim > 1) == decays]
            if parameters:
                rate = recipe.lr * recipe.layer_decay**distance
                decay = recipe.weight_decay if decays else 0.0
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return groups


def move(model: Classifier, optimizer: torch.optim.Optimizer, scaler: GradScaler, recipe: Recipe) -> None:
    """One step along the gradients that have been gathered, which are gone afterwards."""
    if recipe.clip_norm > 0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    if recipe.l1 > 0:
        shrink(model.head.weight, optimizer.param_groups[0]["lr"] * recipe.l1)
    optimizer.zero_grad()


@torch.no_grad()
def shrink(weight: Tensor, by: float) -> None:
    """Bring each value nearer to 0 by `by`, and those that are nearer than that to exactly 0.

    With `by` = lr · l1 after each step this is L1 by proximal descent, w ← sign(w) · max(|w| - lr · l1, 0) (Duchi &
    Singer 2009). Unlike a term of the loss it leaves true zeros, and neither clipping nor an adaptive rate alters it.
    """
    weight.copy_(softshrink(weight, by))
