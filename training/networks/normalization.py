"""The scale of pixels that the pretrained weights expect."""

import torch
from torch import Tensor

# Of the ImageNet training photos, per channel and for values from 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalized(pixels: Tensor) -> Tensor:
    """Pixels 0..255 [N, 3, H, W] to float32 of mean 0 and deviation 1 over ImageNet, channels last in memory."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1)
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
