"""Training photos decoded once, resized and stored on disk, so that no epoch decodes JPEG.

A decoded photo depends on the file, the size and the libraries that decode, so these are its key. The files are
plain uint8 RGB: encoding again would lose detail. Evaluation never reads them.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from anther.files import locked_folder, replacing
from bundle.formats.walk import ALLOWED_FORMATS
from bundle.preprocessing import decode
from bundle.repository import sha256_of
from training import provenance
from training.dataset.bounded import mapped
from training.dataset.data import Photo, read_photo
from training.errors import DiskUnusable, StoreDamaged
from training.files import write_json
from training.progress import Reporter

_PHOTOS_A_SHARD = 512
_AHEAD_OF_EACH_CORE = 4  # photos
_SAMPLED = 128  # photos whose size stands for all
_MAX_SHARE = 0.9  # of the free space


class Place(NamedTuple):
    shard: str
    offset: int  # bytes
    width: int
    height: int


class DecodedPhoto(NamedTuple):
    digest: str
    width: int
    height: int
    pixels: bytes  # uint8 [height, width, 3], RGB


@dataclass(frozen=True)
class Stored:
    """Where each decoded photo lies, by the digest of its file. Holds no pixels and no open file."""

    folder: Path
    places: dict[str, Place]

    def photo(self, digest: str) -> Image.Image:
        """RGB, of the stored size. Raises `StoreDamaged`."""
        place = self.places[digest]
        path = self.folder / place.shard
        size = place.width * place.height * 3
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(place.offset)
                pixels = file.read(size)
        except OSError as exc:
            raise StoreDamaged(path, f"unreadable ({exc.strerror})") from exc
        if len(pixels) < size:
            raise StoreDamaged(path, "cut short")
        return Image.frombytes("RGB", (place.width, place.height), pixels)


def store(
    root: Path,
    photos: Sequence[Photo],
    short_side: int,
    cache: Path,
    reporter: Reporter,
    photos_a_shard: int = _PHOTOS_A_SHARD,
) -> Stored:
    """Decode the photos that the cache lacks, and return the places of all.

    One process writes at a time, and others wait for it. A damaged file is reported and its photos are decoded again. A
    killed run keeps the files that it finished. Raises `PhotoChanged` or `DiskUnusable`.
    """
    folder = cache / _key(short_side)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_folder(folder), ThreadPoolExecutor(_cores()) as pool:
            _clear_remains(folder)
            places = _places(folder, {photo.digest for photo in photos}, pool, reporter)
            missing = [photo for photo in photos if photo.digest not in places]
            if missing:
                _announce(root, missing, short_side, folder, reporter)
            parts = [missing[at : at + photos_a_shard] for at in range(0, len(missing), photos_a_shard)]
            for number, part in enumerate(parts, 1):
                what = f"Decoding photos, part {number} of {len(parts)}"
                decoded = mapped(pool, lambda photo: _shrunken(root, photo, short_side), part, _ahead())
                places |= _write(folder, part, reporter.track(decoded, what, len(part)))
    except OSError as exc:
        raise DiskUnusable(folder, exc.strerror or str(exc), "free some space, or use --stored-size 0") from exc
    return Stored(folder, places)


def _shrunken(root: Path, photo: Photo, short_side: int) -> DecodedPhoto:
    image = decode(read_photo(root, photo))
    size = _stored_size(*image.size, short_side)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return DecodedPhoto(photo.digest, *size, image.tobytes())


def _stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Never larger than the photo is."""
    scale = min(1.0, short_side / min(width, height))
    return round(width * scale), round(height * scale)


def _write(folder: Path, photos: Sequence[Photo], decoded: Iterator[DecodedPhoto]) -> dict[str, Place]:
    """One shard and then its index; without the index the shard does not count."""
    name = _name(photo.digest for photo in photos)
    digest, rows = hashlib.sha256(), []
    with replacing(folder / f"{name}.rgb") as temporary, temporary.open("wb") as file:
        for photo in decoded:
            file.write(photo.pixels)
            digest.update(photo.pixels)
            rows.append([photo.digest, photo.width, photo.height])
    write_json(folder / f"{name}.json", {"sha256": digest.hexdigest(), "photos": rows})
    return _placed(folder / f"{name}.rgb", rows)


def _placed(shard: Path, rows: Sequence[Any]) -> dict[str, Place]:
    """Raises `ValueError` where the shard has another length or the index other photos than they were written with."""
    places, offset = {}, 0
    for digest, width, height in rows:
        places[digest] = Place(shard.name, offset, width, height)
        offset += width * height * 3
    if offset != shard.stat().st_size or _name(places) != shard.stem:
        raise ValueError("shard and index do not belong together")
    return places


def _name(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _places(folder: Path, wanted: set[str], pool: Executor, reporter: Reporter) -> dict[str, Place]:
    """What whole shards hold of `wanted`; damaged ones are deleted."""
    indices = sorted(folder.glob("*.json"))
    places: dict[str, Place] = {}
    loaded = mapped(pool, lambda index: (index, _loaded(index, wanted)), indices, _ahead())
    for index, found in reporter.track(loaded, "Proving decoded photos", len(indices)):
        if found is None:
            reporter.say(f"{index.with_suffix('.rgb')} is damaged; decoding its photos again")
            index.unlink()
            index.with_suffix(".rgb").unlink(missing_ok=True)
        else:
            places |= found
    return places


def _loaded(index: Path, wanted: set[str]) -> dict[str, Place] | None:
    """None where the shard does not match its index."""
    shard = index.with_suffix(".rgb")
    try:
        record = json.loads(index.read_text())
        places = _placed(shard, record["photos"])
        if wanted.isdisjoint(places):
            return {}
        return places if sha256_of(shard) == record["sha256"] else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _announce(root: Path, photos: Sequence[Photo], short_side: int, folder: Path, reporter: Reporter) -> None:
    """Report the space that the photos need before they are written."""
    needed = _bytes(root, photos, short_side)
    _require_room(len(photos), needed, shutil.disk_usage(folder).free, folder)
    reporter.say(f"keeping {len(photos):,} decoded photos in {folder}, about {needed / 1e9:.2f} GB")


def _require_room(photos: int, needed: int, free: int, folder: Path) -> None:
    """Raises `DiskUnusable`."""
    if needed > _MAX_SHARE * free:
        reason = f"{photos:,} decoded photos need about {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
        raise DiskUnusable(folder, reason, "use a smaller --stored-size, or 0")


def _bytes(root: Path, photos: Sequence[Photo], short_side: int) -> int:
    """By the headers of evenly spaced photos."""
    sampled = photos[:: max(1, len(photos) // _SAMPLED)]
    total = 0
    for photo in sampled:
        with Image.open(io.BytesIO(read_photo(root, photo)), formats=ALLOWED_FORMATS) as header:
            width, height = _stored_size(*header.size, short_side)
        total += width * height * 3
    return total * len(photos) // len(sampled)


def _clear_remains(folder: Path) -> None:
    """Of a writer that was killed: only the one whose turn it is comes here."""
    for path in [*folder.glob(".*"), *folder.glob("*.rgb")]:
        if path.name.startswith(".") or not path.with_suffix(".json").exists():
            path.unlink()


def _key(short_side: int) -> str:
    codecs = {name: version for name, version in provenance.computing_versions().items() if name != "torch"}
    key = {"short_side": short_side, "versions": codecs}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _ahead() -> int:
    return _AHEAD_OF_EACH_CORE * _cores()
