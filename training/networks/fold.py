"""Folds batch norms into the convolutions before them, which saves operations at inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import SqueezeExcitation

M = TypeVar("M", bound=nn.Module)

_IN_ORDER = (nn.Sequential, BasicBlock, Bottleneck)  # what calls a norm right after the convolution named before it


def folded(module: M) -> M:
    """A copy in eval mode whose (convolution, batch norm) pairs became one convolution."""
    module = copy.deepcopy(module).eval()
    for parent in module.modules():
        if isinstance(parent, _IN_ORDER):
            _fold_pairs(parent)
        elif isinstance(parent, SqueezeExcitation):
            parent.avgpool = Mean()
    return module


class Mean(nn.Module):
    """[N, C, h, w] to [N, C, 1, 1]; the published adaptive pooling to 1 × 1 would be exported as nine operations."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.mean((2, 3), keepdim=True)


def _fold_pairs(parent: nn.Module) -> None:
    for (name, convolution), (after, norm) in pairwise(list(parent.named_children())):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
            setattr(parent, after, nn.Identity())
