"""Finds the suspects of a folder, a table or a run's photos, and writes them as one page."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jinja2

from anther.files import replace
from bundle.preprocessing import Preprocessing, decode
from training import device, pipeline
from training.config import Backbone, Machine, Recipe
from training.dataset import data, split
from training.dataset.data import Photo, read_photo
from training.dataset.listing import root_of
from training.dataset.tables import USUAL, Columns
from training.evaluation.report import data_uri
from training.files import write_json
from training.inference import batches
from training.networks import weights
from training.progress import Reporter
from training.runs.run import RECIPE, Run
from training.suspects import find
from training.suspects.find import InspectedSet
from training.suspects.records import Suspects

PAGE, RECORD = "suspects.html", "suspects.json"


@dataclass(frozen=True)
class InspectionOptions:
    """The network and split of an inspection.

    Without a network it is the run's, or the default one with ImageNet weights.
    """

    weights: str | None = None  # 'imagenet', 'none' or a path
    backbone: Backbone | None = None
    folds: int = 5
    split_seed: int = 0  # of a folder or table, for the part that each photo would belong to
    runs: Path = Path("runs")  # holds the cache of features for a folder or table
    columns: Columns = USUAL


def suspects(
    source: Path, options: InspectionOptions, machine: Machine, reporter: Reporter
) -> tuple[Suspects, InspectedSet]:
    """The suspects, and the photos that were inspected.

    Raises `DataRefused`, `WeightsUnusable`, `RunUnusable` or `DeviceUnavailable`.
    """
    begun = Run(source) if is_run(source) else None
    recipe = Recipe() if begun is None else begun.recipe()
    weights_of = "imagenet" if begun is None else begun.source().weights
    whole = dataclasses.replace(
        recipe, backbone=options.backbone or recipe.backbone, strategy="finetune", keep_blocks=0
    )
    subject = _of_data(source, options, machine, reporter) if begun is None else _of_run(begun, machine)
    model = weights.build(whole, len(subject.labels), options.weights or weights_of).to(device.choose(machine))
    return find.find(subject, model, options.folds, reporter), subject


def write(found: Suspects, subject: InspectedSet, folder: Path, most: int) -> Path:
    """`suspects.json`, and `suspects.html` with at most so many of a kind; returns the page. Raises `PhotoChanged`."""
    write_json(folder / RECORD, dataclasses.asdict(found))
    replace(folder / PAGE, render(found, subject, most).encode())
    return folder / PAGE


def is_run(source: Path) -> bool:
    return (source / RECIPE).exists()


def _of_run(started: Run, machine: Machine) -> InspectedSet:
    placed = started.split()
    return InspectedSet(
        of=str(started.path),
        root=root_of(Path(started.source().data)),
        labels=placed.labels,
        photos=[data.Photo(photo.path, photo.label, photo.digest) for photo in placed.photos],
        parts=[photo.part for photo in placed.photos],
        preprocessing=_preprocessing(started.recipe()),
        parallelism=batches.parallelism(machine, device.choose(machine)),
        cache=pipeline.feature_cache(started),
    )


def _of_data(source: Path, options: InspectionOptions, machine: Machine, reporter: Reporter) -> InspectedSet:
    scanned = data.scan(source, reporter, options.columns)
    photos, found = data.check(scanned)
    data.require_trainable(scanned, found, source, strict=False)
    if left_out := data.left_out(found):
        reporter.say(f"left out {left_out}")
    return InspectedSet(
        of=str(source),
        root=scanned.root,
        labels=scanned.labels,
        photos=photos,
        parts=[split.place(photo.digest, options.split_seed) for photo in photos],
        preprocessing=_preprocessing(Recipe()),
        parallelism=batches.parallelism(machine, device.choose(machine)),
        cache=options.runs / ".cache" / "features",
    )


def _preprocessing(recipe: Recipe) -> Preprocessing:
    return Preprocessing(resize=recipe.resize, crop=recipe.crop)


def render(found: Suspects, subject: InspectedSet, most: int) -> str:
    """HTML with at most so many suspects of a kind; every text from outside is escaped. Raises `PhotoChanged`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.suspects", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = [label.photo.path for label in found.labels[:most]]
    shown += [outlier.photo.path for outlier in found.outliers[:most]]
    shown += [photo.path for pair in found.copies[:most] for photo in (pair.first, pair.second)]
    photos = {photo.path: photo for photo in subject.photos}
    thumbnails = {path: _thumbnail(subject.root, photos[path]) for path in dict.fromkeys(shown)}
    return environment.get_template("suspects.html").render(found=found, thumbnails=thumbnails, most=most)


def _thumbnail(root: Path, photo: Photo) -> str:
    return data_uri(decode(read_photo(root, photo)))
