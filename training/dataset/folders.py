"""A folder per class: the name of the first folder below the root is the label."""

from pathlib import Path

from training.dataset.listing import Listed, Listing
from training.errors import FlatFolder, NoPhotos


def listed(root: Path) -> Listing:
    """Every file below the class folders, hidden ones left out. A class folder may hold folders of its own.

    Raises `NoPhotos` or `FlatFolder`.
    """
    classes = _class_folders(root)
    files = [Listed(folder.name, name) for folder in classes for name in _below(folder, root)]
    return Listing(root, root, tuple(folder.name for folder in classes), files)


def _class_folders(root: Path) -> list[Path]:
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
