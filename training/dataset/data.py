"""A folder per class becomes a list of checked photos.

Every file goes through the service's own decoder: a photo that training may see is one that the service would accept.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ImageRefused
from bundle.preprocessing import decode
from training.errors import EmptyClass, FlatFolder, LabelConflict, NoPhotos, OneClass, PhotoChanged
from training.progress import Reporter


@dataclass(frozen=True)
class Photo:
    """A decodable file: its path below the data folder, its class, and the SHA-256 of its content."""

    path: str
    label: str
    digest: str


@dataclass(frozen=True)
class Undecodable:
    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """Every file below the class folders, in order of path."""

    root: Path
    labels: tuple[str, ...]  # every class folder, with photos or without
    photos: tuple[Photo, ...]
    undecodable: tuple[Undecodable, ...]


@dataclass(frozen=True)
class Check:
    """What was found in the folder, by path. `duplicates` and `conflicts` list groups of equal content."""

    usable: dict[str, int]  # label → photos that remain
    undecodable: tuple[Undecodable, ...]
    duplicates: tuple[tuple[str, ...], ...]  # the first of each group is kept
    conflicts: tuple[tuple[str, ...], ...]  # the same content under two labels; none is kept


def scan(root: Path, reporter: Reporter) -> Scan:
    """Read and decode every file below the class folders, on all cores.

    Raises `NoPhotos` or `FlatFolder`.
    """
    files = _files(root)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        results = pool.map(lambda item: _read(root, *item), files)
        found = list(reporter.track(results, "Checking photos", len(files)))
    photos = tuple(item for item in found if isinstance(item, Photo))
    undecodable = tuple(item for item in found if isinstance(item, Undecodable))
    if not photos:
        raise NoPhotos(root, len(undecodable))
    return Scan(root, tuple(folder.name for folder in _class_folders(root)), photos, undecodable)


def check(scanned: Scan) -> tuple[tuple[Photo, ...], Check]:
    """Keep one photo of each content. Content under two labels is left out and listed."""
    groups: dict[str, list[Photo]] = defaultdict(list)
    for photo in scanned.photos:
        groups[photo.digest].append(photo)
    conflicts = [group for group in groups.values() if len({photo.label for photo in group}) > 1]
    agreeing = [group for group in groups.values() if len({photo.label for photo in group}) == 1]
    kept = tuple(group[0] for group in agreeing)
    counts = dict.fromkeys(scanned.labels, 0)
    for photo in kept:
        counts[photo.label] += 1
    duplicates = _paths([group for group in agreeing if len(group) > 1])
    return kept, Check(counts, scanned.undecodable, duplicates, _paths(conflicts))


def require_trainable(scanned: Scan, found: Check, listed_in: Path, *, strict: bool) -> None:
    """Raises `EmptyClass` or `OneClass`, and `LabelConflict` where `strict`."""
    if strict and found.conflicts:
        raise LabelConflict(found.conflicts, listed_in)
    for label, photos in found.usable.items():
        if photos == 0:
            raise EmptyClass(scanned.root / label)
    if len(found.usable) == 1:
        (label,) = found.usable
        inner = [path.name for path in (scanned.root / label).iterdir() if path.is_dir()]
        raise OneClass(scanned.root, label, inner)


def left_out(found: Check) -> str:
    """What of the folder is not used, in words; empty where everything is."""
    copies = sum(len(group) - 1 for group in found.duplicates)
    counts = [
        (len(found.undecodable), "that cannot be decoded"),
        (copies, "that copy another"),
        (sum(len(group) for group in found.conflicts), "whose content stands under two labels"),
    ]
    return ", ".join(f"{count} files {what}" for count, what in counts if count)


def fingerprint(photos: Sequence[Photo]) -> str:
    """SHA-256 over the sorted (digest, label) pairs: the same photos in any order and under any file name."""
    pairs = sorted((photo.digest, photo.label) for photo in photos)
    return hashlib.sha256("".join(f"{digest} {label}\n" for digest, label in pairs).encode()).hexdigest()


def read_photo(root: Path, photo: Photo) -> bytes:
    """The content that was checked, and no other. Raises `PhotoChanged`."""
    path = root / photo.path
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise PhotoChanged(path, f"unreadable ({exc.strerror})") from exc
    if hashlib.sha256(data).hexdigest() != photo.digest:
        raise PhotoChanged(path, "changed")
    return data


def _files(root: Path) -> list[tuple[str, Path]]:
    """(label, file) below each class folder, hidden ones left out. A class folder may hold folders of its own."""
    classes = _class_folders(root)
    files = [(folder.name, path) for folder in classes for path in sorted(folder.rglob("*"))]
    return [(label, path) for label, path in files if path.is_file() and not _hidden(path.relative_to(root))]


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise NoPhotos(root)
    entries = [path for path in root.iterdir() if not path.name.startswith(".")]
    classes = sorted(path for path in entries if path.is_dir())
    if not classes and entries:
        raise FlatFolder(root, len(entries))
    return classes


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read(root: Path, label: str, path: Path) -> Photo | Undecodable:
    name = path.relative_to(root).as_posix()
    try:
        data = path.read_bytes()
        decode(data)
    except ImageRefused as exc:
        return Undecodable(name, str(exc))
    except OSError as exc:
        return Undecodable(name, f"the file cannot be read ({exc.strerror})")
    return Photo(name, label, hashlib.sha256(data).hexdigest())


def _paths(groups: Sequence[Sequence[Photo]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(photo.path for photo in group) for group in groups)
