"""Which files carry which labels, before any of them is opened: what a folder or a table says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

TABLES = (".csv", ".tsv", ".parquet")


class Listed(NamedTuple):
    """`path` is POSIX and relative to the listing's root, or absolute where a table says so."""

    label: str
    path: str


@dataclass(frozen=True)
class Listing:
    source: Path  # the folder or table as it was given
    root: Path
    labels: tuple[str, ...]  # sorted; a class folder counts even when it is empty
    files: Sequence[Listed]


def is_table(source: Path) -> bool:
    """By its name, so that the answer outlives the file; a folder may be called anything."""
    return source.suffix.lower() in TABLES and not source.is_dir()


def root_of(source: Path) -> Path:
    """What the paths of its photos are relative to."""
    return source.parent if is_table(source) else source
