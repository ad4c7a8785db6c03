"""Unpacks an untrusted archive: plain files below one folder only, within bounds, all or none."""

import gzip
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from training.errors import ArchiveRefused


@dataclass(frozen=True)
class Bounds:
    """What an archive may grow to."""

    files: int = 20_000  # and folders
    size: int = 2 * 10**9  # bytes after decompression, headers included


DEFAULT_BOUNDS = Bounds()


def unpack(archive: Path, staging: Path, bounds: Bounds = DEFAULT_BOUNDS) -> Path:
    """Extract a .tgz into `staging`, which is emptied first, and return the folder that holds its content.

    That is its one top folder, where it has a single one. The caller renames it into place, after which it is whole
    even through a power cut. Raises `ArchiveRefused`, or `OSError` of the disk; then `staging` is gone.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        _extract(archive, staging, bounds)
        os.sync()  # once for all files: one fsync each would take minutes
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as exc:
        shutil.rmtree(staging)
        raise ArchiveRefused(archive, f"it is damaged ({exc})") from exc
    except BaseException:
        shutil.rmtree(staging)
        raise
    entries = list(staging.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else staging


def _extract(archive: Path, staging: Path, bounds: Bounds) -> None:
    contents = _Contents(archive, bounds)
    with gzip.open(archive) as packed:
        stream = _Bounded(packed, archive, bounds.size)
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
            for member in tar:
                _refuse_unsafe(member, archive)
                contents.add(member)
                tar.extract(member, staging, set_attrs=False, filter="data")
        while stream.read(2**20):  # to gzip's own checksum
            pass
    if not contents.files:
        raise ArchiveRefused(archive, "it holds no file")


class _Contents:
    """The entries so far, so that no path is written twice and their number stays bounded."""

    def __init__(self, archive: Path, bounds: Bounds) -> None:
        self._archive, self._bounds = archive, bounds
        self.files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def add(self, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        folders = set(path.parents) if member.isreg() else {path, *path.parents}
        if path in self.files or folders & self.files or (member.isreg() and path in self._folders):
            raise ArchiveRefused(self._archive, f"it holds {member.name} twice")
        self._folders |= folders
        if member.isreg():
            self.files.add(path)
        if len(self.files) + len(self._folders) > self._bounds.files:
            raise ArchiveRefused(self._archive, f"it holds more than {self._bounds.files} files and folders")


def _refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    """Stricter than tarfile's own filter, which lets links within the folder and mends absolute paths in silence."""
    name = member.name
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ArchiveRefused(archive, f"{name} is neither a plain file nor a folder")
    if name.startswith(("/", "\\")) or "\\" in name or "\0" in name:
        raise ArchiveRefused(archive, f"{name!r} is not a path below the archive's folder")
    if ".." in PurePosixPath(name).parts:
        raise ArchiveRefused(archive, f"{name} leads outside the archive's folder")


class _Bounded:
    """A stream that refuses to give more than so many bytes, whatever the headers in it claim."""

    def __init__(self, stream: gzip.GzipFile, archive: Path, size: int) -> None:
        self._stream, self._archive, self._size, self._left = stream, archive, size, size

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveRefused(self._archive, f"it holds more than {self._size:,} bytes")
        return data
