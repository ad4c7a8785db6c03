"""The fine-tuning loop, in plain sight: batches in, a better model out, and nothing lost to `kill -9`.

Training state lives in named parts that a checkpoint saves together; what is drawn at random depends on the seed and
the step alone. So a resumed training ends in the same weights, bit for bit, on the same processor and thread count.
"""

import copy
import dataclasses
import math
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LRScheduler

from training.config import Machine, Recipe
from training.dataset import loader
from training.errors import RecipeInvalid, TrainingDiverged
from training.files import write_json
from training.learning import checkpoint, device, distributed, history, lr_finder, optim, schedules
from training.learning.accumulation import Groups
from training.learning.distributed import ALONE, World
from training.learning.history import Epoch, State, write_curves
from training.learning.objective import Objective
from training.networks import norms
from training.networks.backbones import Classifier
from training.networks.ema import Ema
from training.progress import Reporter, Silent
from training.run_context import RunContext

__all__ = ["MET_BY_ALL", "Epoch", "finetune", "follow", "validate", "write_curves"]

MET_BY_ALL = (TrainingDiverged, RecipeInvalid)
"""Errors that all of several processes meet at once, so that they may go on with another training."""


def finetune(
    model: Classifier,
    start: Epoch,
    material: RunContext,
    recipe: Recipe,
    machine: Machine,
    folder: Path,
    reporter: Reporter,
    *,
    pretrained: bool,
) -> list[Epoch]:
    """Train what is not frozen of `model`, leave the best averaged weights in it, and return the history.

    `start` is the row of the model as given; a checkpoint `folder/checkpoint.pt` goes before both. Among several
    processes, the first calls this and the others `follow`. Raises `TrainingDiverged`, `PhotoChanged`, `RecipeInvalid`
    or `RunUnusable`.
    """
    world = distributed.world()
    model.to(material.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    photos = material.photos("train")
    targets = material.split.targets(photos)
    frozen = norms.frozen(recipe, len(photos), pretrained)
    if world.leads:
        recipe = _with_rate(model, material, recipe, machine, folder, reporter, frozen=frozen, pretrained=pretrained)
        travelling = copy.deepcopy(model).cpu() if world.size > 1 else model
        world.tell((travelling, start, material, recipe, machine, folder, pretrained))
    material = dataclasses.replace(material, lanes=world.lanes(material.lanes))

    order = loader.Order(len(photos), recipe, rank=world.rank, world=world.size, targets=targets)
    groups = Groups(order.steps_per_epoch, recipe.accumulate)
    ema = Ema(model, recipe.ema_decay)
    objective = Objective(recipe, material.targets("train"), model.head.out_features, material.device)
    optimizer = optim.optimizer(model, recipe)
    schedule = schedules.schedule(optimizer, recipe, groups.updates_per_epoch)
    scaler = GradScaler(material.device.type, enabled=objective.arithmetic == torch.float16)
    parts: dict[str, checkpoint.Stateful] = {
        "model": model, "ema": ema.module, "optimizer": optimizer, "schedule": schedule, "scaler": scaler,
    }  # fmt: skip
    state = history.restore(folder, parts, material.device) or State([start], copy.deepcopy(model.state_dict()))
    network = device.compiled(model, recipe, material.device, reporter)
    saved = time.monotonic()
    if world.leads:
        write_curves(folder, state.history)

    views = loader.Views(material.root, photos, targets, recipe, material.stored)
    remaining = loader.Order(len(photos), recipe, state.step, rank=world.rank, world=world.size, targets=targets)
    batches = loader.loader(views, remaining, world.cores(device.workers(machine)), material.device)
    for pictures, classes in reporter.track(batches, f"Fine-tuning, at most {recipe.epochs} epochs", len(remaining)):
        if state.stale() >= recipe.patience:
            break
        world.seed(recipe.seed, state.step)
        norms.train_mode(model, frozen)
        part = len(classes) / min(recipe.batch_size, len(photos))  # of the batch, in this process
        loss = objective(network, pictures, classes, state.step) * part
        scaler.scale(loss / groups.size(state.step)).backward()  # type: ignore[no-untyped-call]  # as in torch
        state.step += 1
        state.loss_sum += _finite(world.total(loss), state.step, recipe.lr)
        if not groups.complete(state.step):
            continue

        world.add_up(part.grad for part in model.parameters() if part.grad is not None)
        optim.move(model, optimizer, scaler, recipe)
        schedule.step()
        world.agree_on_statistics(model)
        ema.update(model, groups.updates(state.step))

        epoch_ended = state.step % order.steps_per_epoch == 0
        if epoch_ended:
            _end_epoch(state, ema, schedule, order.steps_per_epoch, material, folder, reporter, world)
        if world.leads and (epoch_ended or time.monotonic() - saved >= machine.checkpoint_seconds):
            history.save(folder, parts, state)
            saved = time.monotonic()

    model.load_state_dict(state.best)
    return state.history


def follow(world: World) -> None:
    """Help with every fine-tuning that the first of several processes begins, until it says that there are no more."""
    while (told := world.tell(None)) is not None:
        model, start, material, recipe, machine, folder, pretrained = told
        with suppress(*MET_BY_ALL):  # the first process says so, and may go on
            finetune(model, start, material, recipe, machine, folder, Silent(), pretrained=pretrained)


def validate(model: Classifier, material: RunContext, reporter: Reporter, world: World = ALONE) -> tuple[float, float]:
    """Cross-entropy in nats and share of right answers on the validation split, each photo answered by one process."""
    photos = material.photos("val")
    logits = torch.zeros(0, model.head.out_features)
    if mine := world.share(photos):
        answers = material.answers(model, mine, reporter, "Answering val photos")
        logits = torch.from_numpy(answers.outputs)
    logits = world.gather(logits, len(photos))
    targets = material.targets("val")
    return float(cross_entropy(logits, targets)), float((logits.argmax(1) == targets).float().mean())


def _with_rate(
    model: Classifier,
    material: RunContext,
    recipe: Recipe,
    machine: Machine,
    folder: Path,
    reporter: Reporter,
    *,
    frozen: bool,
    pretrained: bool,
) -> Recipe:
    """The recipe with the peak rate that is given, found by a sweep, or usual for what is tuned: `folder/rate.json`."""
    if recipe.find_lr:
        found = lr_finder.measured(model, material, recipe, machine, folder, reporter, frozen=frozen)
    else:
        found = optim.with_rate(recipe, model, frozen=frozen, pretrained=pretrained)
        if found != recipe:
            reporter.say(f"rate       {found.lr:g}")
    write_json(folder / "rate.json", {"lr": found.lr})
    return found


def _finite(loss: float, step: int, lr: float) -> float:
    if not math.isfinite(loss):
        raise TrainingDiverged(step, lr)
    return loss


def _end_epoch(
    state: State,
    ema: Ema,
    schedule: LRScheduler,
    steps: int,
    material: RunContext,
    folder: Path,
    reporter: Reporter,
    world: World,
) -> None:
    val_loss, val_top1 = validate(ema.module, material, reporter, world)
    lr = float(schedule.get_last_lr()[0])
    row = Epoch(len(state.history), lr, state.loss_sum / steps, val_loss, val_top1)
    state.history.append(row)
    state.loss_sum = 0.0
    if state.improved():
        state.best = copy.deepcopy(ema.module.state_dict())
    reporter.say(
        f"epoch {row.epoch:>3}  train loss {row.train_loss:.4f}  val loss {val_loss:.4f}  val top-1 {val_top1:.4f}"
        + ("  best" if state.improved() else "")
    )
    if world.leads:
        write_curves(folder, state.history)
