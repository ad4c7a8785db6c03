"""What a training step makes small: the cross-entropy of a batch, as the recipe mixes, weighs and computes it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.config import Recipe
from training.learning import balance, device
from training.learning.augment import normalized
from training.learning.mixing import Mixer


class Objective:
    """`targets` int64 [N] are the classes of all training photos, from which rare ones get their weights."""

    def __init__(self, recipe: Recipe, targets: Tensor, classes: int, on: torch.device) -> None:
        self.arithmetic = device.arithmetic(recipe, on)
        self._device, self._smoothing = on, recipe.label_smoothing
        self._mixer = Mixer(recipe, classes)
        weighs = recipe.balance == "weights"
        self._weights = balance.class_weights(targets, classes).to(on) if weighs else None

    def __call__(self, network: nn.Module, pictures: Tensor, targets: Tensor, step: int) -> Tensor:
        """Mean loss in nats of pictures uint8 [N, 3, H, W] with classes int64 [N], on the device.

        `step` counts batches from 0 and decides how they are mixed.
        """
        pictures, targets = pictures.to(self._device, non_blocking=True), targets.to(self._device)
        pictures, targets = self._mixer(pictures, targets, step)
        with torch.autocast(self._device.type, dtype=self.arithmetic, enabled=self.arithmetic != torch.float32):
            logits = network(normalized(pictures))
        if self._weights is None:
            return cross_entropy(logits.float(), targets, label_smoothing=self._smoothing)
        # Divided by photos, not by their weights, so that parts of a batch add up to the whole, mixed or not.
        total = cross_entropy(logits.float(), targets, self._weights, reduction="sum", label_smoothing=self._smoothing)
        return total / len(targets)
