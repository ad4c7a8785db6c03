"""The fine-tuning loop, in plain sight: batches in, a better model out, and nothing lost to `kill -9`.

Training state lives in named parts that a checkpoint saves together; what is drawn at random depends on the seed and
the step alone. So a resumed training ends in the same weights, bit for bit, on the same processor and thread count.
"""

import copy
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.config import Machine, Recipe
from training.dataset import loader
from training.errors import TrainingDiverged
from training.files import write_json_lines
from training.learning import checkpoint, device, optim
from training.learning.augment import normalized
from training.material import Material
from training.networks.backbones import Classifier
from training.networks.ema import Ema
from training.networks.fold import folded
from training.progress import Reporter


@dataclass(frozen=True)
class Epoch:
    """One line of `curves.jsonl`. Validation is that of the averaged weights."""

    epoch: int
    lr: float
    train_loss: float | None  # None where nothing was trained yet
    val_loss: float
    val_top1: float


@dataclass
class State:
    """What the loop knows besides its parts. The history starts with the head's row, epoch 0."""

    history: list[Epoch]
    best: dict[str, torch.Tensor]  # weights of the best row
    step: int = 0
    loss_sum: float = 0.0  # over the steps of the epoch so far

    def improved(self) -> bool:
        """Whether the newest row is the best one."""
        return _best(self.history) == len(self.history) - 1

    def stale(self) -> int:
        """Epochs since the best one. The head does not count: the first epochs of a good training may be worse."""
        tuned = self.history[1:]
        return len(tuned) - 1 - _best(tuned) if tuned else 0


def finetune(
    model: Classifier,
    start: Epoch,
    material: Material,
    recipe: Recipe,
    machine: Machine,
    folder: Path,
    reporter: Reporter,
) -> list[Epoch]:
    """Train all weights of `model`, leave the best averaged ones in it, and return the history.

    `start` is the row of the model as given; a checkpoint `folder/checkpoint.pt` goes before both. Raises
    `TrainingDiverged`, `PhotoChanged` or `RunUnusable`.
    """
    model.to(material.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
    photos = material.photos("train")
    order = loader.Order(len(photos), recipe)
    dtype = device.arithmetic(recipe, material.device)
    ema = Ema(model, recipe.ema_decay)
    optimizer = optim.optimizer(model, recipe)
    schedule = optim.schedule(optimizer, recipe, order.steps_per_epoch)
    scaler = torch.amp.grad_scaler.GradScaler(material.device.type, enabled=dtype == torch.float16)
    parts: dict[str, checkpoint.Stateful] = {
        "model": model, "ema": ema.module, "optimizer": optimizer, "schedule": schedule, "scaler": scaler,
    }  # fmt: skip
    state = _resume(folder, parts, material.device) or State([start], copy.deepcopy(model.state_dict()))
    write_curves(folder, state.history)
    saved = time.monotonic()

    views = loader.Views(material.root, photos, material.split.targets(photos), recipe)
    remaining = loader.Order(len(photos), recipe, state.step)
    batches = loader.loader(views, remaining, device.workers(machine), material.device)
    for pictures, targets in reporter.track(batches, f"Fine-tuning, at most {recipe.epochs} epochs", len(remaining)):
        if state.stale() >= recipe.patience:
            break
        model.train()
        with torch.autocast(material.device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = model(normalized(pictures.to(material.device, non_blocking=True)))
        loss = cross_entropy(logits.float(), targets.to(material.device), label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        state.step += 1
        ema.update(model, state.step)
        state.loss_sum += _finite(loss, state.step, recipe.lr)

        epoch_ended = state.step % order.steps_per_epoch == 0
        if epoch_ended:
            _end_epoch(state, ema, float(schedule.get_last_lr()[0]), order.steps_per_epoch, material, reporter)
            write_curves(folder, state.history)
        if epoch_ended or time.monotonic() - saved >= machine.checkpoint_seconds:
            checkpoint.save(folder / "checkpoint.pt", parts, _facts(state))
            saved = time.monotonic()

    model.load_state_dict(state.best)
    return state.history


def _best(rows: list[Epoch]) -> int:
    """Position of the most accurate epoch; among equals the one with the lowest loss."""
    return min(range(len(rows)), key=lambda index: (-rows[index].val_top1, rows[index].val_loss))


def _resume(folder: Path, parts: dict[str, checkpoint.Stateful], target: torch.device) -> State | None:
    facts = checkpoint.restore(folder / "checkpoint.pt", parts, target)
    if facts is None:
        return None
    return State([Epoch(**row) for row in facts["history"]], facts["best"], facts["step"], facts["loss_sum"])


def _facts(state: State) -> dict[str, Any]:
    history = [dataclasses.asdict(row) for row in state.history]
    return {"step": state.step, "loss_sum": state.loss_sum, "history": history, "best": state.best}


def _finite(loss: torch.Tensor, step: int, lr: float) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged(step, lr)
    return value


def _end_epoch(state: State, ema: Ema, lr: float, steps: int, material: Material, reporter: Reporter) -> None:
    val_loss, val_top1 = validate(ema.module, material, reporter)
    row = Epoch(len(state.history), lr, state.loss_sum / steps, val_loss, val_top1)
    state.history.append(row)
    state.loss_sum = 0.0
    if state.improved():
        state.best = copy.deepcopy(ema.module.state_dict())
    reporter.say(
        f"epoch {row.epoch:>3}  train loss {row.train_loss:.4f}  val loss {val_loss:.4f}  val top-1 {val_top1:.4f}"
        + ("  best" if state.improved() else "")
    )


def validate(model: Classifier, material: Material, reporter: Reporter) -> tuple[float, float]:
    """Cross-entropy in nats and share of right answers on the validation split."""
    logits = torch.from_numpy(material.logits(folded(model), "val", reporter).outputs)
    targets = material.targets("val")
    return float(cross_entropy(logits, targets)), float((logits.argmax(1) == targets).float().mean())


def write_curves(folder: Path, history: list[Epoch]) -> None:
    """All epochs so far as `curves.jsonl`."""
    write_json_lines(folder / "curves.jsonl", [dataclasses.asdict(row) for row in history])
