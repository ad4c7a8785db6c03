"""Which weights may move: whatever the recipe does not train is fixed before training begins."""

from torch import nn

from training.config import Recipe
from training.networks.backbones import Classifier

HEAD_ALONE = ("head", "truncate")  # strategies that leave the network under the head as it came


def freeze(model: Classifier, recipe: Recipe) -> None:
    """Let gradients reach only what the strategy trains; the head always learns.

    `finetune` trains the last `tuned_blocks` blocks, all of them where that is 0 or more than there are.
    """
    model.requires_grad_(requires_grad=True)
    if recipe.strategy in HEAD_ALONE:
        model.requires_grad_(requires_grad=False)
        model.head.requires_grad_(requires_grad=True)
    elif recipe.strategy == "finetune" and recipe.tuned_blocks:
        for block in list(model.features)[: -recipe.tuned_blocks]:
            block.requires_grad_(requires_grad=False)


def trainable(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(part.numel() for part in model.parameters() if part.requires_grad)
