"""Files of a repository, read and replaced so that neither a link, a pipe nor a power cut can do harm."""

import fcntl
import os
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


def replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, for readers as for a power cut. Raises `OSError`, and then nothing changed."""
    temporary = path.with_name(f"{temporary_prefix(path)}{uuid.uuid4().hex}")
    with temporary.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    flush_folder(path.parent)


def temporary_prefix(path: Path) -> str:
    """How the files begin that a killed `replace` of `path` leaves behind."""
    return f".{path.name}-"


def flush_folder(folder: Path) -> None:
    """Have the disk remember which files a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One writer of a model's folder at a time; the kernel gives the lock back when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _opener(path: str, flags: int) -> int:
    """For what took the file's place since it was looked at: follow no link, and do not wait for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
