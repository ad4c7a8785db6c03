"""Suspects of a folder or table of photos, or of the photos that a run was made from."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bundle.preprocessing import Preprocessing
from training import batch_inference, pipeline
from training.config import Backbone, Machine, Recipe
from training.dataset import data, split
from training.dataset.listing import root_of
from training.dataset.tables import USUAL, Columns
from training.evaluation.suspects import find, page
from training.evaluation.suspects.find import Suspected
from training.evaluation.suspects.records import Suspects
from training.files import write_atomic, write_json
from training.learning import device
from training.networks import weights
from training.progress import Reporter
from training.run import RECIPE, Run

PAGE, RECORD = "suspects.html", "suspects.json"


@dataclass(frozen=True)
class Looking:
    """How the photos are looked at. Without weights or backbone these are the run's, or ImageNet's and the default."""

    weights: str | None = None  # 'imagenet', 'none' or a path
    backbone: Backbone | None = None
    folds: int = 5
    split_seed: int = 0  # of a folder or table, for the part that each photo would belong to
    runs: Path = Path("runs")  # holds the cache of features for a folder or table
    columns: Columns = USUAL


def suspects(source: Path, looking: Looking, machine: Machine, reporter: Reporter) -> tuple[Suspects, Suspected]:
    """What is found, and what it was found in.

    Raises `DataRefused`, `WeightsUnusable`, `RunUnusable` or `DeviceUnavailable`.
    """
    begun = Run(source) if is_run(source) else None
    recipe = Recipe() if begun is None else begun.recipe()
    weights_of = "imagenet" if begun is None else begun.source().weights
    whole = dataclasses.replace(
        recipe, backbone=looking.backbone or recipe.backbone, strategy="finetune", keep_blocks=0
    )
    subject = _of_data(source, looking, machine, reporter) if begun is None else _of_run(begun, machine)
    model = weights.build(whole, len(subject.labels), looking.weights or weights_of).to(device.choose(machine))
    return find.find(subject, model, looking.folds, reporter), subject


def write(found: Suspects, subject: Suspected, folder: Path, most: int) -> Path:
    """`suspects.json`, and `suspects.html` with at most so many of a kind; returns the page. Raises `PhotoChanged`."""
    write_json(folder / RECORD, dataclasses.asdict(found))
    write_atomic(folder / PAGE, page.render(found, subject, most).encode())
    return folder / PAGE


def is_run(source: Path) -> bool:
    return (source / RECIPE).exists()


def _of_run(started: Run, machine: Machine) -> Suspected:
    placed = started.split()
    return Suspected(
        of=str(started.path),
        root=root_of(Path(started.source().data)),
        labels=placed.labels,
        photos=[data.Photo(photo.path, photo.label, photo.digest) for photo in placed.photos],
        parts=[photo.part for photo in placed.photos],
        preprocessing=_preprocessing(started.recipe()),
        lanes=batch_inference.lanes_for(machine, device.choose(machine)),
        cache=pipeline.feature_cache(started),
    )


def _of_data(source: Path, looking: Looking, machine: Machine, reporter: Reporter) -> Suspected:
    scanned = data.scan(source, reporter, looking.columns)
    photos, found = data.check(scanned)
    data.require_trainable(scanned, found, source, strict=False)
    if left_out := data.left_out(found):
        reporter.say(f"left out {left_out}")
    return Suspected(
        of=str(source),
        root=scanned.root,
        labels=scanned.labels,
        photos=photos,
        parts=[split.place(photo.digest, looking.split_seed) for photo in photos],
        preprocessing=_preprocessing(Recipe()),
        lanes=batch_inference.lanes_for(machine, device.choose(machine)),
        cache=looking.runs / ".cache" / "features",
    )


def _preprocessing(recipe: Recipe) -> Preprocessing:
    return Preprocessing(resize=recipe.resize, crop=recipe.crop)
