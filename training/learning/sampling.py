"""Which photos an epoch shows, in which batches, and which batches make one update of the weights.

All of it depends on the recipe and its seed alone, so that a training can start again at any step.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from training.config import Recipe
from training.errors import RecipeInvalid

Key = tuple[int, ...]
"""Epoch, index of the photo, and from its second showing in the epoch on how often it was shown there before: all that
a view depends on besides the seed."""


class BatchSampler:
    """Batches of keys from `first_step` to the end of the last epoch; each epoch drops its odd last photos.

    Of each batch, process `rank` of `world` gets its own part: `world` processes together see the batches of one. With
    `recipe.balance` "sampling" an epoch shows as many photos, but each class equally often, by `balanced`; that needs
    `targets`, the class index of each photo. Raises `RecipeInvalid` where a batch cannot give every process a photo.
    """

    def __init__(
        self,
        photos: int,
        recipe: Recipe,
        first_step: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
        targets: Sequence[int] | None = None,
    ) -> None:
        self._photos, self._recipe, self._first_step = photos, recipe, first_step
        self._batch_size = min(recipe.batch_size, photos)
        if self._batch_size < world:
            raise RecipeInvalid("batch_size", self._batch_size, f"at least {world}, a photo for each process")
        if recipe.balance == "sampling" and (targets is None or len(targets) != photos):
            raise ValueError("balanced sampling needs the class of each photo")
        self._rank, self._world, self._targets = rank, world, targets
        self.steps_per_epoch = photos // self._batch_size
        self.steps = self.steps_per_epoch * recipe.epochs

    def __len__(self) -> int:
        return self.steps - self._first_step

    def __iter__(self) -> Iterator[list[Key]]:
        for step in range(self._first_step, self.steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if step == self._first_step or position == 0:
                shuffled = self._epoch(epoch)
            start = position * self._batch_size
            yield shuffled[start : start + self._batch_size][self._rank :: self._world]

    def _epoch(self, epoch: int) -> list[Key]:
        """All keys of an epoch, shuffled."""
        keys: list[Key] = [(epoch, index) for index in range(self._photos)]
        if self._recipe.balance == "sampling":
            assert self._targets is not None  # as the constructor saw to
            keys = balanced(self._targets, self._recipe.seed, epoch)
        return [keys[position] for position in permutation(len(keys), "order", self._recipe.seed, epoch)]


def balanced(targets: Sequence[int], seed: int, epoch: int) -> list[Key]:
    """One key for each of the photos' places in an epoch, class by class, each class equally often (give or take one).

    Inside a class photos take turns: a rare class shows all of its photos before it shows one again, and a frequent one
    goes on in the next epoch where this one ends. So each is shown as often as any other of its class, again give or
    take one.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for index, target in enumerate(targets):
        members[target].append(index)
    labels = [sorted(members)[place] for place in permutation(len(members), "classes", seed, epoch)]
    most = math.ceil(len(targets) / len(labels))
    keys: list[Key] = []
    for place, label in enumerate(labels):  # the first classes, other ones in each epoch, get what is left over
        showings = len(targets) // len(labels) + (place < len(targets) % len(labels))
        order = permutation(len(members[label]), f"class {label}", seed, 0)
        photos = [members[label][position] for position in order]
        keys += _showings(photos, epoch * most, showings, epoch)
    return keys


def permutation(count: int, purpose: str, seed: int, epoch: int) -> list[int]:
    """0 to count - 1 in an order that depends on the other arguments alone."""
    digest = hashlib.sha256(f"{purpose} {seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    shuffled: list[int] = torch.randperm(count, generator=generator).tolist()
    return shuffled


def _showings(photos: Sequence[int], first: int, count: int, epoch: int) -> list[Key]:
    """The photos in turn, from place `first` on and round again."""
    keys: list[Key] = []
    for showing in range(count):
        index, before = photos[(first + showing) % len(photos)], showing // len(photos)
        keys.append((epoch, index, before) if before else (epoch, index))
    return keys


@dataclass(frozen=True)
class GradientAccumulation:
    """Batches whose gradients make one update. The last group of an epoch may be smaller; none spans two epochs."""

    batches_per_epoch: int
    accumulate: int  # batches of a full group

    @property
    def updates_per_epoch(self) -> int:
        return math.ceil(self.batches_per_epoch / self.accumulate)

    def size(self, batch: int) -> int:
        """Batches in the group of batch number `batch`, counted from 0 over all epochs."""
        position = batch % self.batches_per_epoch
        first = position - position % self.accumulate
        return min(self.accumulate, self.batches_per_epoch - first)

    def complete(self, batches: int) -> bool:
        """Whether the first `batches` of a training end with a whole group."""
        position = batches % self.batches_per_epoch
        return position % self.accumulate == 0

    def updates(self, batches: int) -> int:
        """Updates that the first `batches` of a training make."""
        epochs, position = divmod(batches, self.batches_per_epoch)
        return epochs * self.updates_per_epoch + math.ceil(position / self.accumulate)
