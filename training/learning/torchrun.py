"""Reads the environment variables that torchrun sets for each process."""

import os
from dataclasses import dataclass

from training.errors import ProcessesUnusable


@dataclass(frozen=True)
class Place:
    """Where a process stands among all (`rank` of `size`) and among those of its machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place() -> Place | None:
    """None where torchrun did not start this process. Raises `ProcessesUnusable`."""
    if "RANK" not in os.environ:
        return None
    return Place(_number("RANK"), _number("WORLD_SIZE"), _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE"))


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        found = f"{name} is '{value}' where a number is expected"
        raise ProcessesUnusable(found, "start several processes with torchrun, or unset RANK")
    return int(value)
