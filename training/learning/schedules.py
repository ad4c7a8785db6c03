"""Learning rate schedules over the updates of a training.

Courses with a warm-up are closed formulas of the update's number: torch's own chain of schedulers computes each rate
from the one before, and so rounds differently. The rates of all blocks keep their proportions.
"""

import math
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from training.config import Recipe

Course = Callable[[int], float]
"""Update, counted from 0, to the share of the peak rate that it gets."""


def schedule(adjusted: torch.optim.Optimizer, recipe: Recipe, updates_per_epoch: int) -> LRScheduler:
    """To be stepped after each update; its state, with the optimizer's, is all that a resumed training needs."""
    updates = updates_per_epoch * recipe.epochs
    if recipe.schedule == "one-cycle":
        return _one_cycle(adjusted, updates)
    warmup = min(max(round(recipe.warmup_epochs * updates_per_epoch), 1), updates)
    courses = {
        "cosine": _cosine(updates - warmup),
        "step": _step(recipe, updates_per_epoch, warmup),
        "constant": _constant,
    }
    return LambdaLR(adjusted, _warmed(courses[recipe.schedule], warmup))


def _warmed(course: Course, warmup: int) -> Course:
    """A linear rise over `warmup` updates, then `course`, which counts from 0 again."""

    def factor(update: int) -> float:
        return (update + 1) / warmup if update < warmup else course(update - warmup)

    return factor


def _cosine(updates: int) -> Course:
    """Half a cosine down to 0 at the last update (Loshchilov & Hutter 2017, without restarts)."""

    def factor(update: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * update / max(updates, 1)))

    return factor


def _step(recipe: Recipe, updates_per_epoch: int, warmup: int) -> Course:
    """A fall at the end of every `step_epochs` epochs of the training, those of the warm-up counted."""

    def factor(update: int) -> float:
        return recipe.step_factor ** ((update + warmup) // (recipe.step_epochs * updates_per_epoch))

    return factor


def _constant(_update: int) -> float:
    return 1.0


def _one_cycle(adjusted: torch.optim.Optimizer, updates: int) -> LRScheduler:
    """From a 25th of the peak up over the first 30 %, then down to nearly 0 (Smith & Topin 2018).

    The momentum stays what the recipe says.
    """
    peaks = [group["lr"] for group in adjusted.param_groups]
    return OneCycleLR(adjusted, max_lr=peaks, total_steps=updates, cycle_momentum=False)
