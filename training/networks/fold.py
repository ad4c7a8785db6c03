"""Batch norms folded into the convolutions before them: the same function, fewer operations."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)


def folded(module: M) -> M:
    """A copy in eval mode whose (convolution, batch norm) pairs inside `nn.Sequential` became one convolution."""
    module = copy.deepcopy(module).eval()
    for parent in module.modules():
        if isinstance(parent, nn.Sequential):
            _fold_pairs(parent)
    return module


def _fold_pairs(parent: nn.Sequential) -> None:
    for index in range(len(parent) - 1):
        convolution, norm = parent[index], parent[index + 1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            parent[index] = fuse_conv_bn_eval(convolution, norm)
            parent[index + 1] = nn.Identity()
