"""Loads augmented training batches in worker processes."""

import functools
import multiprocessing
import os
import select
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bundle.preprocessing import decode
from training.config import Recipe
from training.dataset.data import Photo, read_photo
from training.dataset.decoded import Stored
from training.learning.augment import augmented, train_transform
from training.learning.sampling import BatchSampler, Key


class Views(Dataset[tuple[Tensor, int]]):
    """Key → (uint8 [3, train_size, train_size], class index). Holds no pixels and no state."""

    def __init__(
        self,
        root: Path,
        photos: Sequence[Photo],
        targets: Sequence[int],
        recipe: Recipe,
        stored: Stored | None = None,
    ) -> None:
        self._root, self._photos, self._targets, self._stored = root, photos, targets, stored
        self._seed, self._transform = recipe.seed, train_transform(recipe)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index = key[1]
        image = self._decoded(self._photos[index])
        return augmented(self._transform, image, (self._seed, *key)), self._targets[index]

    def _decoded(self, photo: Photo) -> Image.Image:
        return decode(read_photo(self._root, photo)) if self._stored is None else self._stored.photo(photo.digest)


def loader(views: Views, sampler: BatchSampler, workers: int, device: torch.device) -> DataLoader[tuple[Tensor, int]]:
    """Batches (uint8 [N, 3, H, W], int64 [N]) made ahead of time by worker processes."""
    several = workers > 0
    return DataLoader(
        views,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        multiprocessing_context=_processes() if several else None,
        prefetch_factor=4 if several else None,
        worker_init_fn=functools.partial(_leave_with, os.getpid()) if several else None,
        generator=torch.Generator(),  # otherwise each start would draw from the generator that dropout uses
    )


def _processes() -> multiprocessing.context.ForkServerContext:
    """A trainer with threads must not be forked; a small server that already imported torch can be."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["anther.program", __name__])  # in this order: the first makes the second ours
    return context


def _leave_with(trainer: int, _worker: int) -> None:
    """End this worker when the trainer dies: workers are children of the fork server, which outlives the trainer."""
    try:
        ended = os.pidfd_open(trainer)
    except ProcessLookupError:  # the trainer has ended already
        os._exit(1)
    threading.Thread(target=_exit_once_readable, args=(ended,), name="trainer-watch", daemon=True).start()


def _exit_once_readable(descriptor: int) -> None:
    select.select([descriptor], [], [])
    os._exit(1)
