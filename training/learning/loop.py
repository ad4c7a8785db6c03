"""The fine-tuning loop, in plain sight: a training that `kill -9` ended resumes from its last checkpoint.

A checkpoint saves all named parts of the training together, and random draws depend on the seed and the step alone. So
a resumed training ends in the same weights, bit for bit, on the same processor and thread count.
"""

import copy
import dataclasses
import math
import time
from contextlib import suppress

import torch
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LRScheduler

from training import device
from training.config import Recipe
from training.errors import RecipeInvalid, TrainingDiverged
from training.files import write_json
from training.learning import checkpoint, distributed, history, loader, lr_finder, optim, schedules
from training.learning.distributed import ALONE, World
from training.learning.history import Epoch, State, write_curves
from training.learning.objective import Objective
from training.learning.sampling import BatchSampler, GradientAccumulation
from training.networks import norms
from training.networks.backbones import Classifier
from training.progress import Reporter, Silent
from training.runs.context import RunContext, TrainingSession

__all__ = ["COLLECTIVE_ERRORS", "Epoch", "finetune", "follow", "validate", "write_curves"]

COLLECTIVE_ERRORS = (TrainingDiverged, RecipeInvalid)
"""Errors that all processes of one training raise together, so that they can go on with the next one."""


def finetune(model: Classifier, start: Epoch, session: TrainingSession) -> list[Epoch]:
    """Train what is not frozen of `model`, leave the best averaged weights in it, and return the history.

    `start` is the row of the model as given. A `checkpoint.pt` in the session's folder replaces both. Of several
    processes, the first calls this function and the others call `follow`. Raises `TrainingDiverged`, `PhotoChanged`,
    `RecipeInvalid` or `RunUnusable`.
    """
    world = distributed.world()
    photos = session.context.photos("train")
    frozen = norms.frozen(session.recipe, len(photos), session.pretrained)
    model.to(session.context.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    session = _agreed(model, start, session, world, frozen=frozen)
    context, recipe, reporter = session.context, session.recipe, session.reporter
    targets = context.split.targets(photos)

    sampler = BatchSampler(len(photos), recipe, rank=world.rank, world=world.size, targets=targets)
    accumulation = GradientAccumulation(sampler.steps_per_epoch, recipe.accumulate)
    ema = optim.Ema(model, recipe.ema_decay)
    objective = Objective(recipe, context.targets("train"), model.head.out_features, context.device)
    optimizer = optim.optimizer(model, recipe)
    schedule = schedules.schedule(optimizer, recipe, accumulation.updates_per_epoch)
    scaler = GradScaler(context.device.type, enabled=objective.arithmetic == torch.float16)
    parts: dict[str, checkpoint.Stateful] = {
        "model": model, "ema": ema.module, "optimizer": optimizer, "schedule": schedule, "scaler": scaler,
    }  # fmt: skip
    state = history.restore(session.folder, parts, context.device) or State([start], copy.deepcopy(model.state_dict()))
    network = device.compiled(model, recipe, context.device, reporter)
    saved = time.monotonic()
    if world.leads:
        write_curves(session.folder, state.history)

    views = loader.Views(context.root, photos, targets, recipe, context.stored)
    remaining = BatchSampler(len(photos), recipe, state.step, rank=world.rank, world=world.size, targets=targets)
    batches = loader.loader(views, remaining, world.cores(device.workers(session.machine)), context.device)
    for pixels, classes in reporter.track(batches, f"Fine-tuning, at most {recipe.epochs} epochs", len(remaining)):
        if state.stale() >= recipe.patience:
            break
        world.seed(recipe.seed, state.step)
        norms.train_mode(model, frozen)
        part = len(classes) / min(recipe.batch_size, len(photos))  # of the batch, in this process
        loss = objective(network, pixels, classes, state.step) * part
        scaler.scale(loss / accumulation.size(state.step)).backward()  # type: ignore[no-untyped-call]  # as in torch
        state.step += 1
        state.loss_sum += _finite(world.total(loss), state.step, recipe.lr)
        if not accumulation.complete(state.step):
            continue

        world.add_up(part.grad for part in model.parameters() if part.grad is not None)
        optim.move(model, optimizer, scaler, recipe)
        schedule.step()
        world.agree_on_statistics(model)
        ema.update(model, accumulation.updates(state.step))

        epoch_ended = state.step % sampler.steps_per_epoch == 0
        if epoch_ended:
            _end_epoch(state, ema, schedule, sampler.steps_per_epoch, session, world)
        if world.leads and (epoch_ended or time.monotonic() - saved >= session.machine.checkpoint_seconds):
            history.save(session.folder, parts, state)
            saved = time.monotonic()

    model.load_state_dict(state.best)
    return state.history


def follow(world: World) -> None:
    """Take part in each fine-tuning that the first process starts, until it says that there are no more."""
    while (told := world.tell(None)) is not None:
        model, start, session = told
        with suppress(*COLLECTIVE_ERRORS):  # the first process reports the error, and may go on
            finetune(model, start, session)


def validate(model: Classifier, context: RunContext, reporter: Reporter, world: World = ALONE) -> tuple[float, float]:
    """Cross-entropy in nats and share of right answers on the validation split, each photo answered by one process."""
    photos = context.photos("val")
    logits = torch.zeros(0, model.head.out_features)
    if mine := world.share(photos):
        answers = context.answers(model, mine, reporter, "Answering val photos")
        logits = torch.from_numpy(answers.outputs)
    logits = world.gather(logits, len(photos))
    targets = context.targets("val")
    return float(cross_entropy(logits, targets)), float((logits.argmax(1) == targets).float().mean())


def _agreed(
    model: Classifier, start: Epoch, session: TrainingSession, world: World, *, frozen: bool
) -> TrainingSession:
    """The session of this process: the first process decides the rate and tells the others; all share the cores."""
    if world.leads:
        session = dataclasses.replace(session, recipe=_with_rate(model, session, frozen=frozen))
        travelling = copy.deepcopy(model).cpu() if world.size > 1 else model
        world.tell((travelling, start, dataclasses.replace(session, reporter=Silent())))
    parallelism = world.parallelism(session.context.parallelism)
    return dataclasses.replace(session, context=dataclasses.replace(session.context, parallelism=parallelism))


def _with_rate(model: Classifier, session: TrainingSession, *, frozen: bool) -> Recipe:
    """The recipe with its peak rate: given, found by a sweep, or usual for what is tuned. Writes `rate.json`."""
    if session.recipe.find_lr:
        found = lr_finder.measured(model, session, frozen=frozen)
    else:
        found = optim.with_rate(session.recipe, model, frozen=frozen, pretrained=session.pretrained)
        if found != session.recipe:
            session.reporter.say(f"rate       {found.lr:g}")
    write_json(session.folder / "rate.json", {"lr": found.lr})
    return found


def _finite(loss: float, step: int, lr: float) -> float:
    if not math.isfinite(loss):
        raise TrainingDiverged(step, lr)
    return loss


def _end_epoch(
    state: State, ema: optim.Ema, schedule: LRScheduler, steps: int, session: TrainingSession, world: World
) -> None:
    val_loss, val_top1 = validate(ema.module, session.context, session.reporter, world)
    lr = float(schedule.get_last_lr()[0])
    row = Epoch(len(state.history), lr, state.loss_sum / steps, val_loss, val_top1)
    state.history.append(row)
    state.loss_sum = 0.0
    if state.improved():
        state.best = copy.deepcopy(ema.module.state_dict())
    session.reporter.say(
        f"epoch {row.epoch:>3}  train loss {row.train_loss:.4f}  val loss {val_loss:.4f}  val top-1 {val_top1:.4f}"
        + ("  best" if state.improved() else "")
    )
    if world.leads:
        write_curves(session.folder, state.history)
