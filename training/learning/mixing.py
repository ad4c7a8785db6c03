"""Mixes two photos: mixup blends them (Zhang et al. 2018), CutMix pastes a part of one into another (Yun et al. 2019).

What a batch gets depends on (seed, step) alone, so that a resumed training mixes exactly as an uninterrupted one.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from training.config import Recipe
from training.learning.augment import drawn_for


class Mixer:
    """Applies `recipe.mixup` and `recipe.cutmix` to a batch; `classes` is the number of classes C.

    With both on, each batch gets one or the other with equal chance. Each photo's partner is the one before it in the
    batch, whose order is random already; with several processes, each mixes its own part of the batch.
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._seed, self._classes = recipe.seed, classes
        self._ways: list[v2.Transform] = []
        if recipe.mixup > 0:
            self._ways.append(v2.MixUp(alpha=float(recipe.mixup)))
        if recipe.cutmix > 0:
            self._ways.append(v2.CutMix(alpha=float(recipe.cutmix)))

    def __call__(self, pixels: Tensor, targets: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mix photos (uint8, or float32 in 0..255) [N, 3, H, W] with targets int64 [N], on any device.

        Returns photos float32 in 0..255 [N, 3, H, W] and targets float32 [N, C] whose rows sum to 1; where the recipe
        has neither mixup nor CutMix, the very tensors that came in.
        """
        if not self._ways:
            return pixels, targets
        shares = one_hot(targets, self._classes).float()
        with drawn_for(("mixing", self._seed, step)):
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            mixed: tuple[Tensor, Tensor] = way(pixels.float(), shares)
        return mixed
