"""The optimizer with a learning rate for each block, one optimizer step, and the average of the weights."""

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import softshrink
from torch.nn.modules.batchnorm import _BatchNorm

from training.config import Recipe
from training.networks.backbones import Classifier

PEAK = {"sgd": 0.01, "adamw": 0.0005, "rmsprop": 0.0005}
UNSTEADY = 0.1


def with_rate(recipe: Recipe, model: Classifier, *, frozen: bool, pretrained: bool) -> Recipe:
    """The recipe with a peak rate, where it leaves that to the optimizer and to what is tuned.

    Norms that follow the batches bring every layer's output back to scale, whatever a step did to its weights. Where
    the statistics of batch norms are `frozen`, or there are no norms, nothing does: on 200 flower photos a rate of 0.01
    led to answers at random within two epochs, and 0.001 to a better model.
    """
    if recipe.lr > 0:
        return recipe
    steadying = nn.LayerNorm if frozen else (nn.LayerNorm, _BatchNorm)
    follows = any(isinstance(part, steadying) for part in model.features.modules())
    tuned = any(parameter.requires_grad for parameter in model.features.parameters())
    unsteady = pretrained and tuned and not follows
    return dataclasses.replace(recipe, lr=PEAK[recipe.optimizer] * (UNSTEADY if unsteady else 1))


def optimizer(model: Classifier, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW or RMSprop over the weights that are not frozen.

    Earlier blocks learn more slowly; norms and biases do not decay. The recipe has a rate, see `with_rate`.
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
    """One optimizer step along the accumulated gradients, which are cleared afterwards."""
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


class Ema:
    """A running average of weights and buffers: `module` is validated, kept and exported (Polyak & Juditsky 1992).

    Its memory grows over the first steps, so that the random start is soon forgotten.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        self.module = copy.deepcopy(model).eval()
        self.module.requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model` after training step number `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, current in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)
