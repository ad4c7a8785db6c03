"""Trains one recipe several times, with other seeds or on other folds, to measure the spread of its results.

Every repetition is a run of its own beside the first one, so that a killed repetition can be resumed.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from training import pipeline
from training.config import Machine
from training.dataset.data import Photo, fingerprint
from training.dataset.split import Part, Placed, Split, assign_folds
from training.progress import Reporter
from training.runs import run
from training.runs.run import Run

_VAL_SHARE = 9  # of what a fold leaves, one in so many chooses: as in the usual split


@dataclass(frozen=True)
class Repeat:
    """What one of the trainings reached on the photos that it was measured on."""

    name: str
    run: str
    n: int
    top1: float
    macro_f1: float
    negative_log_likelihood: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (over n - 1) of at least two values."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Repeats:
    rows: tuple[Repeat, ...]
    top1: Spread
    macro_f1: Spread
    negative_log_likelihood: Spread


def over_seeds(base: Run, count: int, machine: Machine, reporter: Reporter) -> Repeats:
    """The finished run `base` and `count` - 1 more with the next seeds, on the same split; leaves `seeds.json`.

    All are measured on the test split, and nothing is chosen by it. Raises what `pipeline.resume` raises.
    """
    first = base.asked().seed
    rows = [_row(f"seed {first}", base)]
    for seed in range(first + 1, first + count):
        repeated = _beside(base, f"seed-{seed}", seed)
        rows.append(_row(f"seed {seed}", pipeline.resume(repeated, machine, reporter)))
    found = _spread(rows)
    base.write("seeds.json", found)
    return found


def over_folds(base: Run, count: int, machine: Machine, reporter: Reporter) -> Repeats:
    """Cross-validation (Stone 1974) on all but the test photos of `base`, which stay untouched; leaves `folds.json`.

    Each fold is held out once and only measures; a ninth of the others chooses. Raises what `pipeline.resume` raises.
    """
    rows = []
    for number, parted in enumerate(fold_splits(base.split(), count), start=1):
        repeated = _beside(base, f"fold-{number}-of-{count}", base.asked().seed)
        repeated.write("split.json", parted)
        rows.append(_row(f"fold {number} of {count}", pipeline.resume(repeated, machine, reporter)))
    found = _spread(rows)
    base.write("folds.json", found)
    return found


def fold_splits(whole: Split, count: int) -> list[Split]:
    """One split a fold, in which the fold stands as the test part; the test photos of `whole` are in none."""
    photos = [*whole.part("train"), *whole.part("val")]
    place = assign_folds(photos, count, whole.seed)
    return [_fold_split(whole, photos, [fold == number for fold in place]) for number in range(count)]


def _fold_split(whole: Split, photos: Sequence[Photo], held: Sequence[bool]) -> Split:
    rest = [photo for photo, out in zip(photos, held, strict=True) if not out]
    choosing = {photo.digest for photo, place in zip(rest, assign_folds(rest, _VAL_SHARE), strict=True) if place == 0}

    def part(photo: Photo, out: bool) -> Part:
        return "test" if out else "val" if photo.digest in choosing else "train"

    placed = tuple(
        Placed(photo.path, photo.label, photo.digest, part(photo, out)) for photo, out in zip(photos, held, strict=True)
    )
    return Split(whole.seed, fingerprint(photos), whole.labels, placed)


def _beside(base: Run, name: str, seed: int) -> Run:
    folder = base.path.with_name(f"{base.path.name}-{name}")
    return run.derive(base, folder, dataclasses.replace(base.asked(), seed=seed))


def _row(name: str, finished: Run) -> Repeat:
    found = finished.evaluation().metrics
    return Repeat(name, str(finished.path), found.n, found.top1, found.macro_f1, found.negative_log_likelihood)


def _spread(rows: Sequence[Repeat]) -> Repeats:
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.fmean(values), statistics.stdev(values))

    return Repeats(
        tuple(rows),
        of([row.top1 for row in rows]),
        of([row.macro_f1 for row in rows]),
        of([row.negative_log_likelihood for row in rows]),
    )
