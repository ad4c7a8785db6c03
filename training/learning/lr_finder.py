"""The peak learning rate by measurement: a short training whose rate rises until the loss does (Smith 2017).

It runs on a copy of the model and draws from a copy of the random state, so the training after it is the same as with
that rate given by hand.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LambdaLR

from bundle import schema
from bundle.errors import ManifestInvalid
from training.config import Machine, Recipe
from training.dataset import loader
from training.errors import RunUnusable, TrainingDiverged
from training.files import write_json
from training.learning import device, optim
from training.learning.objective import Objective
from training.material import Material
from training.networks import norms
from training.networks.backbones import Classifier
from training.progress import Reporter

RECORD = "lr.json"
LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
_MEMORY = 0.9  # of the smoothed loss: about ten steps, half a decade of rates
_ENOUGH = 4.0  # times the lowest smoothed loss: the sweep has seen what it wants to see


@dataclass(frozen=True)
class Sweep:
    """The record written as `lr.json`: the rate that it suggests, and the smoothed loss at each rate in nats."""

    lr: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def measured(
    model: Classifier,
    material: Material,
    recipe: Recipe,
    machine: Machine,
    folder: Path,
    reporter: Reporter,
    *,
    frozen: bool,
) -> Recipe:
    """The recipe with the rate that a sweep suggests, if it asks for one; the sweep is `folder/lr.json`.

    A sweep that lies there already is taken. Raises `RunUnusable` or `TrainingDiverged`.
    """
    if not recipe.find_lr:
        return recipe
    path = folder / RECORD
    if not path.exists():
        with torch.random.fork_rng():
            sweep = find(model, material, recipe, machine, reporter, frozen=frozen)
        write_json(path, dataclasses.asdict(sweep))
        reporter.say(f"learning rate {sweep.lr:g}, found by a sweep of {len(sweep.rates)} steps")
    return dataclasses.replace(recipe, lr=_read(path).lr)


def find(
    model: Classifier, material: Material, recipe: Recipe, machine: Machine, reporter: Reporter, *, frozen: bool
) -> Sweep:
    """Train a copy of `model` at rates that rise exponentially from 1e-6 to 10 or until its loss explodes."""
    trial = copy.deepcopy(model)
    objective = Objective(recipe, material.targets("train"), trial.head.out_features, material.device)
    optimizer = optim.optimizer(trial, dataclasses.replace(recipe, lr=LOWEST))
    rising = LambdaLR(optimizer, lambda step: (HIGHEST / LOWEST) ** (step / (STEPS - 1)))
    scaler = GradScaler(material.device.type, enabled=objective.arithmetic == torch.float16)
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    for pictures, targets in reporter.track(_batches(material, recipe, machine), "Finding the learning rate", STEPS):
        norms.train_mode(trial, frozen)
        loss = objective(trial, pictures, targets, len(rates))
        average = _MEMORY * average + (1 - _MEMORY) * loss.item()
        smooth = average / (1 - _MEMORY ** (len(rates) + 1))  # without the pull of its start at 0
        if not math.isfinite(smooth) or smooth > _ENOUGH * min(losses, default=smooth):
            break
        rates.append(float(rising.get_last_lr()[0]))
        losses.append(smooth)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optim.move(trial, optimizer, scaler, recipe)
        rising.step()
    if not rates:
        raise TrainingDiverged(1, LOWEST)
    return Sweep(suggestion(rates, losses), tuple(rates), tuple(losses))


def suggestion(rates: list[float], losses: list[float]) -> float:
    """A tenth of the rate at which the smoothed loss was lowest, the first tenth of the sweep left out as noise.

    The rule that fastai calls `minimum` (its `lr_find`); at the minimum itself the loss is about to rise.
    """
    first = min(STEPS // 10, len(losses) - 1)
    lowest = min(range(first, len(losses)), key=losses.__getitem__)
    return float(f"{rates[lowest] / 10:.3g}")


def _batches(material: Material, recipe: Recipe, machine: Machine) -> Iterator[tuple[Tensor, Tensor]]:
    """The training's first batches, of as many epochs as it takes."""
    photos = material.photos("train")
    targets = material.split.targets(photos)
    epochs = math.ceil(STEPS * recipe.batch_size / len(photos)) + 1
    order = loader.Order(len(photos), dataclasses.replace(recipe, epochs=epochs), targets=targets)
    views = loader.Views(material.root, photos, targets, recipe, material.stored)
    made = loader.loader(views, order, device.workers(machine), material.device)
    for _, batch in zip(range(STEPS), made, strict=False):
        yield batch


def _read(path: Path) -> Sweep:
    try:
        return schema.read(Sweep, schema.parse(path.read_text()))
    except (ManifestInvalid, UnicodeDecodeError) as exc:
        raise RunUnusable(path, f"the sweep cannot be read ({exc})", "delete it to measure again") from exc
