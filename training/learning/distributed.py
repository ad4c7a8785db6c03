"""Data-parallel training in the processes that torchrun started.

Process 0 leads: it alone runs the command, writes files and reports. The others wait for the fine-tunings that it
starts and compute their part of every batch and of validation. All sum their gradients, so that all hold equal weights.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from training.errors import ProcessesUnusable
from training.inference.batches import Parallelism
from training.learning import torchrun
from training.learning.torchrun import Place

T = TypeVar("T")

# The others wait while process 0 reads photos and fits a head. When it dies, torchrun ends them at once.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """The processes of one training, from the view of one of them. With a single process no method changes anything."""

    rank: int = 0
    size: int = 1
    on_this_machine: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this process; every item is in exactly one."""
        return items[self.rank :: self.size]

    def cores(self, count: int) -> int:
        """The part of this process of the machine's `count` workers; 0 stays 0."""
        return max(count // self.on_this_machine, min(count, 1))

    def parallelism(self, whole: Parallelism) -> Parallelism:
        """The part of this process of the machine's threads."""
        return replace(whole, threads=self.cores(whole.threads))

    def tell(self, message: Any) -> Any:
        """Broadcast the message of process 0 to all processes; the others' `message` is ignored."""
        if self.size == 1:
            return message
        said = [message]
        dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        return said[0]

    def total(self, value: Tensor) -> float:
        """The sum of a number over all processes."""
        summed = value.detach().clone()
        self.add_up([summed])
        return summed.item()

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes: one message for all of them, equal bits everywhere."""
        if self.size == 1:
            return
        parts = list(tensors)
        if not parts:
            return
        flat = torch.cat([part.detach().reshape(-1) for part in parts])
        dist.all_reduce(flat)
        totals = torch.split(flat, [part.numel() for part in parts])
        for part, total in zip(parts, totals, strict=True):
            part.detach().copy_(total.view(part.shape))

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """All `total` rows in order, from each process's `share` of them. None is padded or doubled."""
        if self.size == 1:
            return rows
        every = torch.zeros((total, *rows.shape[1:]), dtype=rows.dtype)
        every[self.rank :: self.size] = rows
        dist.all_reduce(every)  # one of the summands of each row is the row, all others are 0
        return every

    def seed(self, seed: int, step: int) -> None:
        """Seed dropout by step and process, so that the checkpoint of process 0 resumes all processes."""
        if self.size > 1:
            digest = hashlib.sha256(f"process {seed} {step} {self.rank}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:7], "big"))

    def agree_on_statistics(self, model: nn.Module) -> None:
        """Average the running statistics of batch norms that follow the batches.

        A norm normalises by its own process's part of a batch, on every device: its statistics are of that many photos.
        """
        followed = list(_statistics(model))
        self.add_up(followed)
        for statistics in followed:
            statistics.div_(self.size)


ALONE = World()


@contextmanager
def joined(place: Place, device: str) -> Iterator[World]:
    """Work with the processes that torchrun started, for as long as the block takes.

    Gradients travel by NCCL between CUDA devices, one a process, and by gloo between CPUs. Raises `ProcessesUnusable`.
    """
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if on_cuda:
        _take_device(place.local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_cuda else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE, rank=place.rank, world_size=place.size)
    yield world()  # not in a finally: after an error torchrun ends the other processes
    dist.destroy_process_group()


def world() -> World:
    """The processes that this one has joined."""
    place = torchrun.place() if dist.is_initialized() else None
    return ALONE if place is None else World(place.rank, place.size, place.local_size)


def _take_device(number: int) -> None:
    found = torch.cuda.device_count()
    if number >= found:
        raise ProcessesUnusable(
            f"process {number + 1} of this machine finds {found} CUDA devices",
            f"use torchrun --nproc-per-node {found}, or --device cpu",
        )
    torch.cuda.set_device(number)


def _statistics(model: nn.Module) -> Iterator[Tensor]:
    for part in model.modules():
        if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None:
            assert part.running_var is not None
            yield part.running_mean
            yield part.running_var
