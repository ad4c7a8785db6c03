"""The pictures of a folder, one after the other: never a million at once, only the names of the folders on the way."""

import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_FOLDER = "/"  # behind a name; no name holds one
_END = b"\0"  # behind a name; no name holds one either
_PIECE = 1024  # names that are sorted at once; more take more memory while a folder is listed

Listing = Callable[[Path], Iterator[str]]


def walk(arguments: Iterable[Path], *, in_order: bool = True) -> Iterator[Path]:
    """Named files whatever they are, and the pictures below named folders, in the order of their names; each once.

    Links to folders are not followed, and what is neither a file nor a link is passed over. A folder that cannot be
    listed comes in place of its pictures, so that reading it as one tells why. Names that wait for their turn take one
    byte more than their letters; without an order only the names of folders wait.
    """
    listing = _sorted if in_order else _as_they_come
    given: dict[str, Path] = {}
    for argument in arguments:
        given.setdefault(_absolute(argument), argument)
    folders = [path for path, argument in given.items() if argument.is_dir()]
    files = given.keys() - folders
    for path, argument in given.items():
        if path in files:
            yield argument
        elif not any(_reaches(other, path) for other in folders):
            yield from (photo for photo in _below(argument, listing) if not files or _absolute(photo) not in files)


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


def _below(folder: Path, listing: Listing) -> Iterator[Path]:
    levels = [(folder, listing(folder))]
    while levels:
        above, left = levels[-1]
        try:
            name = next(left, None)
        except OSError:  # it cannot be listed
            levels.pop()
            yield above
            continue
        if name is None:
            levels.pop()
        elif name.endswith(_FOLDER):
            levels.append((above / name, listing(above / name)))
        else:
            yield above / name


def _sorted(folder: Path) -> Iterator[str]:
    """Pictures and folders in it. Raises `OSError`."""
    names = _Names()
    with os.scandir(folder) as entries:
        for name in filter(None, map(_name, entries)):
            names.add(name)
    yield from names


def _as_they_come(folder: Path) -> Iterator[str]:
    """The same, pictures first. Raises `OSError`."""
    folders = _Names()
    with os.scandir(folder) as entries:
        for name in filter(None, map(_name, entries)):
            if name.endswith(_FOLDER):
                folders.add(name)
            else:
                yield name
    yield from folders


class _Names:
    """Names in sorted pieces of bytes, merged as they are read: a list of strings would take four times the memory."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._last: list[bytes] = []

    def add(self, name: str) -> None:
        self._last.append(os.fsencode(name))
        if len(self._last) == _PIECE:
            self._pack()

    def __iter__(self) -> Iterator[str]:
        self._pack()
        return map(os.fsdecode, heapq.merge(*map(_unpacked, self._pieces)))

    def _pack(self) -> None:
        self._pieces.append(b"".join(name + _END for name in sorted(self._last)))
        self._last.clear()


def _unpacked(piece: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(piece):
        end = piece.index(_END, start)
        yield piece[start:end]
        start = end + 1


def _name(entry: "os.DirEntry[str]") -> str | None:
    if entry.is_dir(follow_symlinks=False):
        return entry.name + _FOLDER
    if os.path.splitext(entry.name)[1].lower() not in SUFFIXES or not _is_file(entry):  # noqa: PTH122 - no Path a file
        return None
    return entry.name


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Reading a pipe or a device might never end. Of a link that leads nowhere, reading it will say so."""
    try:
        return entry.is_file(follow_symlinks=False) or stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True
