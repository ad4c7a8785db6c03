"""The training loss: the cross-entropy of a batch, with the recipe's mixing, class weights and arithmetic."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import device
from training.config import Recipe
from training.learning.mixing import Mixer
from training.networks.normalization import normalized


class Objective:
    """`targets` int64 [N] are the classes of all training photos, from which rare ones get their weights."""

    def __init__(self, recipe: Recipe, targets: Tensor, classes: int, on: torch.device) -> None:
        self.arithmetic = device.arithmetic(recipe, on)
        self._device, self._smoothing = on, recipe.label_smoothing
        self._mixer = Mixer(recipe, classes)
        weighs = recipe.balance == "weights"
        self._weights = class_weights(targets, classes).to(on) if weighs else None

    def __call__(self, network: nn.Module, pixels: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean loss in nats of pixels uint8 [N, 3, H, W] with classes int64 [N], on the device.

        `step` counts batches from 0 and decides how they are mixed.
        """
        pixels, targets = pixels.to(self._device, non_blocking=True), targets.to(self._device)
        pixels, targets = self._mixer(pixels, targets, step)
        with torch.autocast(self._device.type, dtype=self.arithmetic, enabled=self.arithmetic != torch.float32):
            logits = network(normalized(pixels))
        if self._weights is None:
            return cross_entropy(logits.float(), targets, label_smoothing=self._smoothing)
        # Divided by photos, not by their weights, so that parts of a batch add up to the whole, mixed or not.
        total = cross_entropy(logits.float(), targets, self._weights, reduction="sum", label_smoothing=self._smoothing)
        return total / len(targets)


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """float32 [C]: inverse to each class's share of `targets` int64 [N], with a mean of 1 over these photos.

    So the loss, and with it the best learning rate, keeps its size. A class without photos weighs nothing.
    """
    counts = torch.bincount(targets, minlength=classes).float()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 0.0)
