"""A linear head on fixed features: multinomial logistic regression, its L2 strength chosen on validation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

_STRENGTHS = tuple(10 ** (power / 2) for power in range(2, -11, -1))  # from 10 to 1e-5, strongest first
_MAX_STEPS = 100


@dataclass(frozen=True)
class Examples:
    """Features float32 [N, D] and class indices int64 [N]."""

    features: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Trial:
    """One strength of regularisation and what came of it; losses in nats."""

    l2: float
    train_loss: float
    val_loss: float
    val_top1: float


@dataclass(frozen=True)
class Head:
    """weight float32 [C, D] and bias float32 [C] of the best trial, and all trials in order."""

    weight: Tensor
    bias: Tensor
    best: Trial
    trials: tuple[Trial, ...]


def fit(
    train: Examples, val: Examples, classes: int, label_smoothing: float, class_weights: Tensor | None = None
) -> Head:
    """Weaken L2 step by step while that lowers the validation loss, and keep the best head.

    `class_weights` float32 [C] weigh each photo's loss by its class, on both sides. Deterministic: the loss is convex
    and the whole set is one batch.
    """
    mean, scale = train.features.mean(0), _scale(train.features)
    scaled = Examples((train.features - mean) / scale, train.targets)
    layer = nn.Linear(train.features.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    trials: list[Trial] = []
    weight, bias = layer.weight.detach(), layer.bias.detach()
    for l2 in _STRENGTHS:  # each starts from its stronger neighbour's solution
        train_loss = _minimize(layer, scaled, l2, label_smoothing, class_weights)
        found = _unscaled(layer, mean, scale)
        trials.append(Trial(l2, train_loss, *_validate(*found, val, class_weights)))
        if min(trials, key=lambda trial: trial.val_loss) is not trials[-1]:
            break
        weight, bias = found
    return Head(weight, bias, min(trials, key=lambda trial: trial.val_loss), tuple(trials))


def _scale(features: Tensor) -> Tensor:
    """One deviation for all features, so that quiet ones stay quiet; floored where they hardly vary at all."""
    deviation = (features - features.mean(0)).square().mean().sqrt()
    return torch.maximum(deviation, 0.01 * features.square().mean().sqrt()) + 1e-12


def _minimize(
    layer: nn.Linear, examples: Examples, l2: float, label_smoothing: float, class_weights: Tensor | None
) -> float:
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=_MAX_STEPS, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
    )

    def error() -> Tensor:
        logits = layer(examples.features)
        return cross_entropy(logits, examples.targets, class_weights, label_smoothing=label_smoothing)

    def objective() -> float:
        optimizer.zero_grad()
        total = error() + l2 * layer.weight.square().sum() / 2
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return float(total.detach())

    optimizer.step(objective)  # type: ignore[no-untyped-call]  # as above
    return float(error().detach())


@torch.no_grad()
def _unscaled(layer: nn.Linear, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same head for features as they come."""
    weight = layer.weight / scale
    return weight, layer.bias - weight @ mean


def _validate(weight: Tensor, bias: Tensor, val: Examples, class_weights: Tensor | None) -> tuple[float, float]:
    logits = val.features @ weight.T + bias
    loss = cross_entropy(logits, val.targets, class_weights)
    return float(loss), float((logits.argmax(1) == val.targets).float().mean())
