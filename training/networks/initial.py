"""Initial values of layers without pretrained weights, drawn by the recipe's choice and seed."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import init

from training.config import Recipe

_RELU = math.sqrt(2)  # makes up for the half that an activation cuts off


@torch.no_grad()
def draw(module: nn.Module, recipe: Recipe) -> None:
    """Draw the weights of all convolutions and linear layers in `module` anew by `recipe.head_init`; biases are 0.

    With n inputs and m outputs a layer, the deviation is √(1/n) for normal and uniform (LeCun et al. 1998), √(2/n) for
    kaiming (He et al. 2015) and √(2/(n + m)) for xavier (Glorot & Bengio 2010); orthogonal rows are of length √2 (Saxe
    et al. 2014). Leaves torch's random state as it was.
    """
    digest = hashlib.sha256(f"new layers {recipe.seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            start = torch.empty(layer.weight.shape)  # on the CPU: a device would draw other numbers
            _DRAWS[recipe.head_init](start, generator)
            layer.weight.copy_(start)
            if layer.bias is not None:
                init.zeros_(layer.bias)


def _normal(weight: Tensor, generator: Generator) -> None:
    init.normal_(weight, std=_inputs(weight) ** -0.5, generator=generator)


def _uniform(weight: Tensor, generator: Generator) -> None:
    bound = math.sqrt(3 / _inputs(weight))
    init.uniform_(weight, -bound, bound, generator)


def _orthogonal(weight: Tensor, generator: Generator) -> None:
    init.orthogonal_(weight, _RELU, generator)


def _kaiming(weight: Tensor, generator: Generator) -> None:
    init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def _xavier(weight: Tensor, generator: Generator) -> None:
    init.xavier_normal_(weight, generator=generator)


def _inputs(weight: Tensor) -> int:
    return weight[0].numel()


_DRAWS: dict[str, Callable[[Tensor, Generator], None]] = {
    "normal": _normal,
    "uniform": _uniform,
    "orthogonal": _orthogonal,
    "kaiming": _kaiming,
    "xavier": _xavier,
}
