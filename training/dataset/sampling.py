"""Which photos an epoch shows, as numbers alone: in an order of its own, and on request each class equally often."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence

import torch

Key = tuple[int, ...]
"""Epoch, index of the photo, and from its second showing in the epoch on how often it was shown there before: all that
a view depends on besides the seed."""


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
