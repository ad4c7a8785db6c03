"""Finds new photos below a folder per class. Each scan calls stat, and reads only files whose stat changed."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bundle.errors import ImageRefused
from bundle.preprocessing import decode

Snapshot = dict[str, tuple[int, int]]
"""Path below the root → size in bytes and time of the last change in ns."""


def key(label: str, digest: str) -> bytes:
    """The identity of a photo, independent of its path: its class and the SHA-256 of its content."""
    return hashlib.sha256(f"{digest} {label}".encode(errors="surrogateescape")).digest()


class Arrivals:
    """Scans a folder per class. Not for use by several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keys: dict[str, tuple[tuple[int, int], bytes | None]] = {}
        self._photos: dict[bytes, bool] = {}

    def snapshot(self) -> Snapshot:
        """Every file below the class folders, hidden ones left out; empty while there is no folder."""
        return dict(_below(str(self._root), "", depth=0))

    def keys(self, snapshot: Snapshot) -> set[bytes]:
        """Of all files that can be read."""
        self._keys = {path: self._keys[path] for path in snapshot if path in self._keys}
        return {found for path in snapshot if (found := self._key(path, snapshot[path])) is not None}

    def new(self, snapshot: Snapshot, known: set[bytes], enough: int) -> int:
        """The number of photos that are not `known`, up to `enough`. Files that cannot be decoded do not count."""
        found: set[bytes] = set()
        for path, state in snapshot.items():
            photo = self._key(path, state)
            if photo is not None and photo not in known and photo not in found and self._is_photo(path, photo):
                found.add(photo)
                if len(found) == enough:
                    break
        return len(found)

    def _key(self, path: str, state: tuple[int, int]) -> bytes | None:
        if path not in self._keys or self._keys[path][0] != state:
            self._keys[path] = (state, self._read(path))
        return self._keys[path][1]

    def _read(self, path: str) -> bytes | None:
        """None where the file is deleted or locked; its next change is seen again."""
        try:
            with (self._root / path).open("rb") as file:
                return key(path.partition("/")[0], hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            return None

    def _is_photo(self, path: str, photo: bytes) -> bool:
        if photo not in self._photos:
            try:
                decode((self._root / path).read_bytes())
                self._photos[photo] = True
            except (ImageRefused, OSError):
                self._photos[photo] = False
        return self._photos[photo]


def _below(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield from _entry(entry, prefix, depth)
    except OSError:  # deleted or locked; a later scan sees its files
        return


def _entry(entry: "os.DirEntry[str]", prefix: str, depth: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """A class folder may be a link; below it links to folders are not followed, as they could lead in a circle."""
    if entry.name.startswith("."):
        return
    if entry.is_dir(follow_symlinks=depth == 0):
        yield from _below(entry.path, f"{prefix}{entry.name}/", depth + 1)
    elif depth > 0:
        found = entry.stat()
        if stat.S_ISREG(found.st_mode):
            yield prefix + entry.name, (found.st_size, found.st_mtime_ns)
