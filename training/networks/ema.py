"""A running average of weights and buffers: what is validated, kept and exported (Polyak & Juditsky 1992)."""

import copy

import torch
from torch import nn

from training.networks.backbones import Classifier


class Ema:
    """`module` is the average. Its memory grows over the first steps, so that the random start is soon forgotten."""

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
