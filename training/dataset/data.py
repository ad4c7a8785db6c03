"""A folder per class, or a table of path and label, becomes a list of checked photos.

Every file goes through the service's own decoder: a photo that training may see is one that the service would accept.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import ImageRefused
from bundle.preprocessing import decode
from training.dataset import tables
from training.dataset.bounded import mapped
from training.dataset.listing import Listed, Listing, folder_listing, is_table
from training.dataset.photo_info import PhotoInfo, photo_info
from training.dataset.tables import USUAL, Columns
from training.errors import EmptyClass, LabelConflict, NoPhotos, OneClass, PhotoChanged, TableUnusable
from training.progress import Reporter

_AHEAD_OF_EACH_CORE = 8  # photos; they hide one slow file, and are all that is in memory at once


@dataclass(frozen=True)
class Photo:
    """A decodable file: its path below the data folder (or an absolute one), its class, and its content's SHA-256."""

    path: str
    label: str
    digest: str


@dataclass(frozen=True)
class Undecodable:
    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """Every file that the folder or table names, in its order. Paths are relative to `root`, or absolute."""

    source: Path  # the folder or table as it was given
    root: Path
    labels: tuple[str, ...]  # every class, with photos or without
    photos: tuple[Photo, ...]
    infos: tuple[PhotoInfo, ...]  # row i is of photo i
    undecodable: tuple[Undecodable, ...]
    broken: dict[str, int]  # label → files that cannot be decoded


@dataclass(frozen=True)
class Check:
    """What was found in the folder, by path. `duplicates` and `conflicts` list groups of equal content."""

    usable: dict[str, int]  # label → photos that remain
    undecodable: tuple[Undecodable, ...]
    duplicates: tuple[tuple[str, ...], ...]  # the first of each group is kept
    conflicts: tuple[tuple[str, ...], ...]  # the same content under two labels; none is kept


def scan(source: Path, reporter: Reporter, columns: Columns = USUAL) -> Scan:
    """Read and decode every file of a folder per class or of a table, on all cores.

    Raises `DataMissing`, `NoPhotos`, `FlatFolder` or `TableUnusable`.
    """
    listing = tables.listed(source, columns) if is_table(source) else folder_listing(source)
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:  # Pillow decodes outside the interpreter lock
        results = mapped(pool, lambda file: _read(listing.root, file), listing.files, _AHEAD_OF_EACH_CORE * cores)
        found = list(reporter.track(results, "Checking photos", len(listing.files)))
    return _sorted_out(listing, found)


def _sorted_out(listing: Listing, found: Sequence[tuple[Photo, PhotoInfo] | Undecodable]) -> Scan:
    seen = [item for item in found if not isinstance(item, Undecodable)]
    undecodable = tuple(item for item in found if isinstance(item, Undecodable))
    if not seen:
        raise NoPhotos(listing.source, len(undecodable))
    broken = Counter(
        file.label for file, item in zip(listing.files, found, strict=True) if isinstance(item, Undecodable)
    )
    photos, infos = zip(*seen, strict=True)
    return Scan(listing.source, listing.root, listing.labels, photos, infos, undecodable, dict(broken))


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
    """Raises `EmptyClass`, `TableUnusable` or `OneClass`, and `LabelConflict` where `strict`."""
    if strict and found.conflicts:
        raise LabelConflict(found.conflicts, listed_in)
    table = is_table(scanned.source)
    for label, photos in found.usable.items():
        if photos == 0 and table:
            raise TableUnusable(scanned.source, f"no photo of class '{label}' is usable", "add some, or drop its rows")
        if photos == 0:
            raise EmptyClass(scanned.root / label)
    if len(found.usable) == 1:
        (label,) = found.usable
        inner = [] if table else [path.name for path in (scanned.root / label).iterdir() if path.is_dir()]
        raise OneClass(scanned.source, label, inner)


def left_out(found: Check) -> str:
    """The files that are left out, in words; empty where all are used."""
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


def _read(root: Path, file: Listed) -> tuple[Photo, PhotoInfo] | Undecodable:
    try:
        data = (root / file.path).read_bytes()
        seen = photo_info(data, decode(data))
    except ImageRefused as exc:
        return Undecodable(file.path, str(exc))
    except OSError as exc:
        return Undecodable(file.path, f"the file cannot be read ({exc.strerror})")
    return Photo(file.path, file.label, hashlib.sha256(data).hexdigest()), seen


def _paths(groups: Sequence[Sequence[Photo]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(photo.path for photo in group) for group in groups)
