"""What torchvision publishes, drawn: a classifier of 1000 classes, and a file of its weights."""

from pathlib import Path

import torch

from training.networks.backbones import BACKBONES

_LARGE = 10_000_000  # values; only dense layers have as many, and no Classifier has those


def network(name: str) -> torch.nn.Module:
    """Random weights. Its batch norms know photos more varied than any of the tests'.

    Else a deep network whose weights nothing has tamed would magnify those.
    """
    torch.manual_seed(0)
    drawn = BACKBONES[name].build().train()
    for part in drawn.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0  # take the batch's own statistics
    patches = torch.nn.functional.interpolate(2 * torch.randn(16, 3, 4, 4), size=64, mode="bilinear")
    with torch.no_grad():
        drawn(patches + torch.randn(16, 3, 64, 64))
    return drawn.eval()


def write(drawn: torch.nn.Module, path: Path) -> Path:
    """Its state_dict; of a tensor too large for a test, one value stands for all."""
    state = drawn.state_dict().items()
    torch.save({key: torch.zeros(1).expand(part.shape) if part.numel() > _LARGE else part for key, part in state}, path)
    return path
