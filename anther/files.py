"""Files of a repository, read and replaced so that neither a link, a pipe nor a power cut can do harm."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_FILE = "no regular file"
_MAX_STEM_BYTES = 255 - len(f".-{uuid.UUID(int=0).hex}")  # 255 bytes are the longest name of the usual file systems


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
    """Put `data` at `path` in one step, for readers as for a power cut.

    A file that is replaced passes on its mode; a symbolic link is itself replaced, and its target stays as it is. The
    folder must exist, unless `make_folder` says to create it. Raises `OSError`. `path` is then as it was, unless the
    disk failed at the very last, when it was to remember the new name.
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
    with _open_folder(path.parent) as folder:  # before anything changes, since it may be refused
        try:
            yield temporary
            with temporary.open("rb") as file:
                _keep_mode(path, file.fileno())
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        os.fsync(folder)


def temporary_path(path: Path) -> Path:
    """A new name beside `path`, hidden, for what is to take its place; `sweep` knows it."""
    return path.with_name(f".{_stem(path.name)}-{uuid.uuid4().hex}")


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed writers left in a folder, of the file `name` alone where it is given.

    The caller holds a lock that keeps other writers out.
    """
    temporary = re.compile(rf"\.{re.escape(_stem(name)) or '.+'}-[0-9a-f]{{32}}")
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
    with _open_folder(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def locked_folder(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a folder's lock, which writes nothing into it. Raises as `lock` does."""
    with _open_folder(folder) as descriptor:
        lock(descriptor, wait=wait)
        yield


def lock(descriptor: int, *, wait: bool = True) -> None:
    """Lock an open file or folder until it is closed; the kernel gives the lock back when its holder dies.

    Raises `BlockingIOError` where another holds it and `wait` is false.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _opener(path: str, flags: int) -> int:
    """For what took the file's place since it was looked at: follow no link, and do not wait for a pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _keep_mode(path: Path, descriptor: int) -> None:
    """Give an open file the mode of the regular file at `path`, where there is one."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        os.fchmod(descriptor, stat.S_IMODE(mode))


def _stem(name: str) -> str:
    """A file's name in its temporary ones, which must not be too long: its beginning and a digest where it is."""
    whole = os.fsencode(name)
    if len(whole) <= _MAX_STEM_BYTES:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:16]
    return f"{whole[: _MAX_STEM_BYTES - 17].decode(errors='ignore')}-{digest}"
