"""The pictures of a folder, one after the other: never a million at once, only the names of the folders on the way."""

import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_FOLDER = "/"  # behind a name; no name holds one


def walk(arguments: Iterable[Path]) -> Iterator[Path]:
    """Named files whatever they are, and the pictures below named folders, in the order of their names; each once.

    Links to folders are not followed. A folder that cannot be listed comes in place of its pictures: whoever reads it
    as one is told why.
    """
    given: dict[str, Path] = {}
    for argument in arguments:
        given.setdefault(_absolute(argument), argument)
    folders = [path for path, argument in given.items() if argument.is_dir()]
    files = given.keys() - folders
    for path, argument in given.items():
        if path in files:
            yield argument
        elif not any(_reaches(other, path) for other in folders):
            yield from (photo for photo in _below(argument) if not files or _absolute(photo) not in files)


def digest(photo: str | Path) -> bytes:
    """16 bytes that stand for a photo, however its path is written."""
    return blake2b(os.fsencode(_absolute(photo)), digest_size=16).digest()


def _reaches(folder: str, other: str) -> bool:
    """Whether walking one folder comes by the other."""
    if folder == other or os.path.commonpath([folder, other]) != folder:
        return False
    way = os.path.relpath(other, folder)
    return os.path.realpath(other) == str(Path(os.path.realpath(folder)) / way)  # and not over a link


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - with links as they are


def _below(folder: Path) -> Iterator[Path]:
    levels = [(folder, iter([""]))]
    while levels:
        above, left = levels[-1]
        if (name := next(left, None)) is None:
            levels.pop()
            continue
        path = above / name
        inside = None if name and not name.endswith(_FOLDER) else _names(path)
        if inside is None:
            yield path
        else:
            levels.append((path, iter(inside)))


def _names(folder: Path) -> list[str] | None:
    """Pictures and folders in it, sorted; None where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(name for entry in entries if (name := _name(entry)))
    except OSError:
        return None


def _name(entry: "os.DirEntry[str]") -> str | None:
    if entry.is_dir(follow_symlinks=False):
        return entry.name + _FOLDER
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES or _leads_to_a_folder(entry):  # noqa: PTH122 - no Path a file
        return None
    return entry.name


def _leads_to_a_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle; reading it will say so
        return False
