"""Learning rate range test: a short training whose rate rises until the loss does (Smith 2017).

The untrained model answers each batch too. A model with a fitted head gains less than batches differ from each other,
so the loss alone would only tell easy batches from hard ones. Both models are copies and draw from a copy of the random
state, so that the training afterwards equals one with the same rate given by hand.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim.lr_scheduler import LambdaLR

from bundle import schema
from bundle.errors import ManifestInvalid
from training import device
from training.config import Recipe
from training.errors import RunUnusable, TrainingDiverged
from training.files import write_json
from training.learning import loader, optim
from training.learning.objective import Objective
from training.learning.sampling import BatchSampler
from training.networks import norms
from training.networks.backbones import Classifier
from training.runs.context import TrainingSession

RECORD = "lr.json"
MIN_LR, MAX_LR, STEPS = 1e-6, 10.0, 100
_MEMORY = 0.9  # of the smoothed loss: about ten steps, half a decade of rates
_ENOUGH = 2.0  # times the loss of the model as it was: the sweep has seen what it wants to see


@dataclass(frozen=True)
class Sweep:
    """The record written as `lr.json`: the rate that it suggests, and what training gained up to each rate.

    A gain is the smoothed loss of the model as it was, less that of the trained one on the same batches, in nats.
    """

    lr: float
    rates: tuple[float, ...]
    gains: tuple[float, ...]


def measured(model: Classifier, session: TrainingSession, *, frozen: bool) -> Recipe:
    """The recipe with the rate that a sweep suggests. The sweep is kept as `lr.json` and measured only once.

    Raises `RunUnusable` or `TrainingDiverged`.
    """
    path = session.folder / RECORD
    if not path.exists():
        with torch.random.fork_rng():
            sweep = find(model, session, frozen=frozen)
        write_json(path, dataclasses.asdict(sweep))
        session.reporter.say(f"learning rate {sweep.lr:g}, found by a sweep of {len(sweep.rates)} steps")
    return dataclasses.replace(session.recipe, lr=_read(path).lr)


def find(model: Classifier, session: TrainingSession, *, frozen: bool) -> Sweep:
    """Train a copy of `model` at rates that rise exponentially from 1e-6 to 10 or until its loss explodes."""
    context, recipe = session.context, session.recipe
    still, trial = copy.deepcopy(model), copy.deepcopy(model)
    objective = Objective(recipe, context.targets("train"), trial.head.out_features, context.device)
    optimizer = optim.optimizer(trial, dataclasses.replace(recipe, lr=MIN_LR))
    rising = LambdaLR(optimizer, lambda step: (MAX_LR / MIN_LR) ** (step / (STEPS - 1)))
    scaler = GradScaler(context.device.type, enabled=objective.arithmetic == torch.float16)
    rates: list[float] = []
    gains: list[float] = []
    before, after = ExponentialAverage(), ExponentialAverage()
    for pixels, targets in session.reporter.track(_batches(session), "Finding the learning rate", STEPS):
        norms.train_mode(still, frozen)
        norms.train_mode(trial, frozen)
        with torch.random.fork_rng(), torch.no_grad():  # so that both drop the same units
            before.add(objective(still, pixels, targets, len(rates)).item())
        loss = objective(trial, pixels, targets, len(rates))
        after.add(loss.item())
        if not after.value <= _ENOUGH * before.value:  # true of NaN as well
            break
        rates.append(float(rising.get_last_lr()[0]))
        gains.append(before.value - after.value)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        optim.move(trial, optimizer, scaler, recipe)
        rising.step()
    if not rates:
        raise TrainingDiverged(1, MIN_LR)
    return Sweep(suggestion(rates, gains), tuple(rates), tuple(gains))


class ExponentialAverage:
    """An exponential average that forgets its start at 0."""

    def __init__(self) -> None:
        self._sum, self._steps = 0.0, 0

    def add(self, value: float) -> None:
        self._sum = _MEMORY * self._sum + (1 - _MEMORY) * value
        self._steps += 1

    @property
    def value(self) -> float:
        return self._sum / (1 - _MEMORY**self._steps)


def suggestion(rates: Sequence[float], gains: Sequence[float]) -> float:
    """A tenth of the rate at which most was gained: at that rate itself the loss is about to rise.

    The rule that fastai's `lr_find` calls `minimum`, for the loss.
    """
    most = max(range(len(gains)), key=gains.__getitem__)
    return float(f"{rates[most] / 10:.3g}")


def _batches(session: TrainingSession) -> Iterator[tuple[Tensor, Tensor]]:
    """The training's first batches, of as many epochs as it takes."""
    context, recipe = session.context, session.recipe
    photos = context.photos("train")
    targets = context.split.targets(photos)
    epochs = math.ceil(STEPS * recipe.batch_size / len(photos)) + 1
    sampler = BatchSampler(len(photos), dataclasses.replace(recipe, epochs=epochs), targets=targets)
    views = loader.Views(context.root, photos, targets, recipe, context.stored)
    made = loader.loader(views, sampler, device.workers(session.machine), context.device)
    for _, batch in zip(range(STEPS), made, strict=False):
        yield batch


def _read(path: Path) -> Sweep:
    try:
        return schema.read(Sweep, schema.parse(path.read_text()))
    except (ManifestInvalid, UnicodeDecodeError) as exc:
        raise RunUnusable(path, f"the sweep cannot be read ({exc})", "delete it to measure again") from exc
