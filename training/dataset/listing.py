"""Lists the files and labels of a folder per class, without opening a file. Tables make the same listing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.errors import DataMissing, FlatFolder, NoPhotos

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


def folder_listing(root: Path) -> Listing:
    """Every file below the class folders, hidden ones left out. A class folder may hold folders of its own.

    Raises `DataMissing`, `NoPhotos` or `FlatFolder`.
    """
    classes = _class_folders(root)
    files = [Listed(folder.name, name) for folder in classes for name in _below(folder, root)]
    return Listing(root, root, tuple(folder.name for folder in classes), files)


def _class_folders(root: Path) -> list[Path]:
    if not root.exists():
        raise DataMissing(root)
    if not root.is_dir():
        raise NoPhotos(root)
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    classes = sorted(path for path in entries if path.is_dir())
    if not classes and entries:
        raise FlatFolder(root, len(entries))
    return classes


def _below(folder: Path, root: Path) -> list[str]:
    """Paths below `root` in the order that `Path` gives them, as strings: a hundred thousand of them stay small."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    relative = [path.relative_to(root) for path in sorted(files)]
    return [path.as_posix() for path in relative if not _hidden(path)]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
