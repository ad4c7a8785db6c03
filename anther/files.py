"""Files of a repository, read and replaced so that neither a link, a pipe nor a power cut can do harm."""

import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_FILE = "no regular file"


def read_regular(path: Path, largest: int) -> bytes:
    """The bytes of a regular file. Raises `OSError`, or `ValueError` on anything else and on over `largest` bytes.

    A symbolic link would tie the folder to a place outside it, and reading a pipe would never end. A second hard link
    is let pass: copies by `cp -al`, deduplicated backups, package caches and image layers are full of them, nobody can
    tell them from the file itself, and whoever relies on the content checks its digest at every reading.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(_NO_FILE)
    with open(path, "rb", opener=_opener) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(_NO_FILE)
        if found.st_size > largest:
            raise ValueError(f"{found.st_size:,} bytes, more than the {largest:,} that are read")
        return file.read(found.st_size)


def replace(path: Path, data: bytes, *, make_folder: bool = False) -> None:
    """Put `data` at `path` in one step, for readers as for a power cut. Raises `OSError`, and then nothing changed.

    The folder must exist, unless `make_folder` says to create it.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another path to write to, whose file takes the place of `path` at the end, as by `replace`.

    Nothing changes where the body raises.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """A new name beside `path`, hidden, for what is to take its place; `sweep` knows it."""
    return path.with_name(f".{path.name}-{uuid.uuid4().hex}")


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed writers left in a folder, of the file `name` alone where it is given.

    For who knows, by a lock, that nobody writes there now.
    """
    temporary = re.compile(rf"\.{re.escape(name) or '.+'}-[0-9a-f]{{32}}")
    for path in folder.iterdir():
        if temporary.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def flush_folder(folder: Path) -> None:
    """Have the disk remember which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which writes nothing into it. Raises as `lock` does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Lock an open file or folder until it is closed; the kernel gives the lock back when its holder dies.

    Raises `BlockingIOError` where another holds it and `wait` is false.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _opener(path: str, flags: int) -> int:
    """For what took the file's place since it was looked at: follow no link, and do not wait for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
