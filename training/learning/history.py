"""The history of a fine-tuning: a row for each epoch, the best weights, and the step reached."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.files import write_json_lines
from training.learning import checkpoint


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
    """The loop's state besides its parts. The history starts with epoch 0, the row of the model as given."""

    history: list[Epoch]
    best: dict[str, torch.Tensor]  # weights of the best row
    step: int = 0  # batches so far
    loss_sum: float = 0.0  # over the batches of the epoch so far

    def improved(self) -> bool:
        """Whether the newest row is the best one."""
        return _best(self.history) == len(self.history) - 1

    def stale(self) -> int:
        """Epochs since the best one. The head does not count: the first epochs of a good training may be worse."""
        tuned = self.history[1:]
        return len(tuned) - 1 - _best(tuned) if tuned else 0


def save(folder: Path, parts: dict[str, checkpoint.Stateful], state: State) -> None:
    """Parts and state as `folder/checkpoint.pt`."""
    facts = {name: getattr(state, name) for name in ("step", "loss_sum", "best")}
    history = [dataclasses.asdict(row) for row in state.history]
    checkpoint.save(folder / "checkpoint.pt", parts, {**facts, "history": history})


def restore(folder: Path, parts: dict[str, checkpoint.Stateful], target: torch.device) -> State | None:
    """Bring back what `save` wrote; None where it wrote nothing yet. Raises `RunUnusable`."""
    facts = checkpoint.restore(folder / "checkpoint.pt", parts, target)
    if facts is None:
        return None
    rows: list[dict[str, Any]] = facts["history"]
    return State([Epoch(**row) for row in rows], facts["best"], facts["step"], facts["loss_sum"])


def write_curves(folder: Path, history: list[Epoch]) -> None:
    """All epochs so far as `curves.jsonl`."""
    write_json_lines(folder / "curves.jsonl", [dataclasses.asdict(row) for row in history])


def _best(rows: list[Epoch]) -> int:
    """Position of the most accurate epoch; among equals the one with the lowest loss."""
    return min(range(len(rows)), key=lambda index: (-rows[index].val_top1, rows[index].val_loss))
