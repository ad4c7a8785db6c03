"""Trains a classifier by the recipe's strategy: a head on frozen features, fine-tuning, or training from scratch."""

import dataclasses
import io

import torch
from torch import nn

from training.config import Recipe
from training.dataset import decoded
from training.learning import loop
from training.learning.loop import Epoch
from training.networks import weights
from training.networks.backbones import Classifier, truncated
from training.runs.context import RunContext, TrainingSession
from training.runs.run import Run
from training.transfer.fitting import fit_head

HEAD_ALONE = ("head", "truncate")  # strategies that do not train the network under the head


def train(started: Run, session: TrainingSession) -> None:
    """The pipeline's training stage: leave `model.pt` in the run's folder, resuming a killed training.

    Raises `RecipeInvalid`, `WeightsUnusable`, `TrainingDiverged`, `PhotoChanged` or `RunUnusable`.
    """
    recipe = session.recipe
    model = weights.build(recipe, len(session.context.split.labels), started.source().weights)
    if recipe.strategy == "truncate":
        model = truncated(model, recipe.keep_blocks, recipe)
    run(model, session)
    started.write_bytes("model.pt", _state_bytes(model))


def run(model: Classifier, session: TrainingSession) -> None:
    """Train `model` in place by the recipe's strategy; the session's folder holds what a killed training resumes from.

    `head` and `truncate` (whose model is cut already) fit a head on cached features, or train a new one in the loop on
    random views. Fine-tuning begins with the fitted head, unless the backbone is random: then no head would fit what it
    becomes.
    """
    recipe = session.recipe
    model.to(session.context.device)
    freeze(model, recipe)
    if _fits(recipe, pretrained=session.pretrained):
        start = fit_head(model, session)
    else:
        start = Epoch(0, 0.0, None, *loop.validate(model, session.context, session.reporter))
    if _only_fits(recipe):
        loop.write_curves(session.folder, [start])
    else:
        loop.finetune(model, start, dataclasses.replace(session, context=_with_stored(session)))


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
    """The number of parameters that training may change."""
    return sum(part.numel() for part in model.parameters() if part.requires_grad)


def _with_stored(session: TrainingSession) -> RunContext:
    """The context with its training photos ready decoded, where the recipe wants that."""
    context, size = session.context, session.recipe.stored_size
    if size == 0:
        return context
    cache = session.feature_cache.with_name("decoded")
    stored = decoded.store(context.root, context.photos("train"), size, cache, session.reporter)
    return dataclasses.replace(context, stored=stored)


def _only_fits(recipe: Recipe) -> bool:
    return recipe.strategy in HEAD_ALONE and recipe.head_features == "cached"


def _fits(recipe: Recipe, *, pretrained: bool) -> bool:
    return _only_fits(recipe) or (recipe.strategy == "finetune" and pretrained)


def _state_bytes(model: Classifier) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, buffer)
    return buffer.getvalue()
