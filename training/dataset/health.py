"""The health of a set of photos: counts for each class, anomalies, and advice."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from training.dataset.data import Check, Photo, Scan, Undecodable
from training.dataset.photo_info import PhotoInfo
from training.dataset.split import PARTS, Part, place

_FEW = 20  # fewer photos in a class make results a matter of luck
_ROUGH = 5  # fewer test photos in a class tell nothing of it
TINY = 64  # pixels on the short side
_LONG = 4.0  # long side over short side; the central square then shows a quarter of the photo or less
_IMBALANCE = 10.0
_GREY_APART = 0.5  # difference of two classes' grey shares at which grey itself gives the class away


@dataclass(frozen=True)
class ClassHealth:
    """Of one label. Sizes and counts are of its decodable photos, copies included."""

    label: str
    photos: int  # that training would use
    share: float  # of all usable photos
    copies: int
    conflicting: int
    undecodable: int
    tiny: int
    grey: float  # share
    median_size: tuple[int, int] | None  # width and height, each by itself; None without a decodable photo
    smallest: tuple[int, int] | None  # the photo with the shortest short side
    parts: dict[Part, int]  # how the split falls


@dataclass(frozen=True)
class Health:
    photos: int
    bytes: int  # of all decodable files
    imbalance: float | None  # largest class over smallest; None where a class is empty
    formats: dict[str, int]
    turned: int  # by EXIF
    long: tuple[str, ...]  # paths of photos over 4 times as long as wide
    classes: tuple[ClassHealth, ...]
    undecodable: tuple[Undecodable, ...]
    duplicates: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    advice: tuple[str, ...]


def health(scanned: Scan, kept: Sequence[Photo], found: Check, split_seed: int) -> Health:
    """Of a set that was scanned and checked; `kept` are the photos that remain."""
    classes = _classes(scanned, kept, found, split_seed)
    long = tuple(photo.path for photo, seen in zip(scanned.photos, scanned.infos, strict=True) if seen.aspect > _LONG)
    counts = [each.photos for each in classes]
    imbalance = max(counts) / min(counts) if min(counts) else None
    return Health(
        photos=len(kept),
        bytes=sum(seen.size for seen in scanned.infos),
        imbalance=imbalance,
        formats=dict(Counter(seen.format for seen in scanned.infos).most_common()),
        turned=sum(seen.turned for seen in scanned.infos),
        long=long,
        classes=classes,
        undecodable=scanned.undecodable,
        duplicates=found.duplicates,
        conflicts=found.conflicts,
        advice=(*_advice_on_files(found, len(long)), *_advice_on_classes(classes, imbalance)),
    )


def _classes(scanned: Scan, kept: Sequence[Photo], found: Check, split_seed: int) -> tuple[ClassHealth, ...]:
    infos: dict[str, list[PhotoInfo]] = defaultdict(list)
    for photo, seen in zip(scanned.photos, scanned.infos, strict=True):
        infos[photo.label].append(seen)
    parts = Counter((photo.label, place(photo.digest, split_seed)) for photo in kept)
    clashing = {path for group in found.conflicts for path in group}
    conflicting = Counter(photo.label for photo in scanned.photos if photo.path in clashing)
    rows = []
    for label, photos in found.usable.items():
        seen_here = infos[label]
        row = ClassHealth(
            label=label,
            photos=photos,
            share=photos / max(len(kept), 1),
            copies=len(seen_here) - photos - conflicting[label],
            conflicting=conflicting[label],
            undecodable=scanned.broken.get(label, 0),
            tiny=sum(seen.short_side < TINY for seen in seen_here),
            grey=sum(seen.grey for seen in seen_here) / max(len(seen_here), 1),
            median_size=_median_size(seen_here),
            smallest=_smallest(seen_here),
            parts={part: parts[label, part] for part in PARTS},
        )
        rows.append(row)
    return tuple(rows)


def _median_size(infos: Sequence[PhotoInfo]) -> tuple[int, int] | None:
    if not infos:
        return None
    return round(median(seen.width for seen in infos)), round(median(seen.height for seen in infos))


def _smallest(infos: Sequence[PhotoInfo]) -> tuple[int, int] | None:
    if not infos:
        return None
    seen = min(infos, key=lambda each: each.short_side)
    return seen.width, seen.height


def _advice_on_files(found: Check, long: int) -> list[str]:
    copies = sum(len(group) - 1 for group in found.duplicates)
    lines = [
        (len(found.undecodable), "files cannot be decoded and are left out: replace or delete them"),
        (copies, "files copy another and are left out"),
        (len(found.conflicts), "groups of equal files under two labels are left out: delete each from the wrong class"),
        (long, f"photos are over {_LONG:g} times as long as wide: the central square shows little of them"),
    ]
    return [f"{count} {text}" for count, text in lines if count]


def _advice_on_classes(classes: Sequence[ClassHealth], imbalance: float | None) -> list[str]:
    lines = []
    for each in classes:
        if each.photos < _FEW:
            lines.append(f"'{each.label}' has {each.photos} photos, fewer than {_FEW}: add some")
        elif each.parts["test"] < _ROUGH:
            lines.append(f"'{each.label}' has {each.parts['test']} test photos: its own figures will be rough")
        if each.tiny:
            lines.append(f"'{each.label}' has {each.tiny} photos under {TINY} pixels: they teach blur")
    if imbalance is not None and imbalance > _IMBALANCE:
        lines.append(f"the largest class has {imbalance:.0f} times the photos of the smallest: use --balance weights")
    greys = sorted(classes, key=lambda each: each.grey)
    if greys[-1].grey - greys[0].grey > _GREY_APART:
        lines.append(f"most grey photos are of '{greys[-1].label}': a model may learn that instead of the object")
    return lines
