"""Loss weights for skewed sets, under which every class counts the same however few photos it has."""

import torch
from torch import Tensor


def class_weights(targets: Tensor, classes: int) -> Tensor:
    """float32 [C]: inverse to each class's share of `targets` int64 [N], with a mean of 1 over these photos.

    So the loss, and with it the best learning rate, keeps its size. A class without photos weighs nothing.
    """
    counts = torch.bincount(targets, minlength=classes).float()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(targets) / (present * counts.clamp(min=1)), 0.0)
