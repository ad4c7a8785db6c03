"""The pipeline's training stage: from photos that are split to `model.pt`, by the strategy that holds."""

import io
from pathlib import Path

import torch

from training.config import Machine, Recipe
from training.networks import weights
from training.networks.backbones import Classifier
from training.networks.truncate import truncated
from training.progress import Reporter
from training.run import Run
from training.run_context import RunContext
from training.transfer import strategies


def train(started: Run, material: RunContext, machine: Machine, cache_root: Path, reporter: Reporter) -> None:
    """Leave `model.pt` in the run's folder; what a killed run left there is gone on with.

    Raises `RecipeInvalid`, `WeightsUnusable`, `TrainingDiverged`, `PhotoChanged` or `RunUnusable`.
    """
    recipe, source = started.recipe(), started.source()
    model = _start(recipe, len(material.split.labels), source.weights)
    strategies.run(
        model, material, recipe, machine, started.path, cache_root, reporter,
        pretrained=source.weights_identity != "none",
    )  # fmt: skip
    started.write_bytes("model.pt", _state_bytes(model))


def _start(recipe: Recipe, classes: int, source: str) -> Classifier:
    model = weights.build(recipe, classes, source)
    return truncated(model, recipe.keep_blocks, recipe) if recipe.strategy == "truncate" else model


def _state_bytes(model: Classifier) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, buffer)
    return buffer.getvalue()
