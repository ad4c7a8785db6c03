"""The folder of one training, `runs/<name>/<UTC time>/`, and the records that its stages leave there."""

import dataclasses
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from anther.files import replace
from bundle import schema
from bundle.errors import ManifestInvalid
from bundle.manifest import valid_name
from training.config import Recipe, Scalar, toml
from training.dataset.data import Photo
from training.dataset.split import Split
from training.errors import RecipeInvalid, RunUnusable
from training.files import write_json
from training.runs.records import Calibrated, Chosen, Evaluation, Source, TrainingRequest

T = TypeVar("T")

RECIPE = "recipe.json"
PHOTOS = "photos.jsonl"
CHOSEN = "chosen.json"
_FOLDER_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Run:
    """Reads raise `RunUnusable` where a stage's record is missing or cannot be read."""

    path: Path

    def asked(self) -> Recipe:
        """The recipe as requested."""
        return self._read(RECIPE, Recipe, "train it first")

    def chosen(self) -> Chosen | None:
        """The decision on what the recipe left open; None where there is none, or not yet."""
        return self.find(CHOSEN, Chosen)

    def recipe(self) -> Recipe:
        """The recipe that training follows: as requested, completed by the decision."""
        chosen = self.chosen()
        return self.asked() if chosen is None else chosen.resolved(self.asked())

    def used(self) -> dict[str, Scalar]:
        """The fields of that recipe, with the peak rate that fine-tuning used where the recipe left it open."""
        rate = self.find("rate.json", dict[str, float])
        return {**self.recipe().record(), **(rate or {})}

    def source(self) -> Source:
        """As requested, except that training from scratch uses no weights."""
        source = self._read("source.json", Source, "train it first")
        if self.recipe().strategy == "scratch":
            return dataclasses.replace(source, weights="none", weights_identity="none")
        return source

    def split(self) -> Split:
        return self._read("split.json", Split, "train it first")

    def photos(self) -> tuple[Photo, ...]:
        """All usable photos, also before they are split."""
        return tuple(schema.read(Photo, row) for row in self.rows(PHOTOS))

    def calibrated(self) -> Calibrated:
        return self._read("calibration.json", Calibrated, self._finish())

    def evaluation(self) -> Evaluation:
        """Of the test split."""
        return Evaluation.read(self._read("evaluation.json", dict, self._finish()))

    def seconds(self) -> dict[str, float]:
        """Stage → time spent, over all resumptions."""
        return self._read("seconds.json", dict[str, float], "train it first") if self.has("seconds.json") else {}

    def rows(self, file: str) -> list[dict[str, Any]]:
        """The rows of a `.jsonl` file; none where the stage leaves no such file."""
        if not self.has(file):
            return []
        try:
            return [schema.parse(line) for line in (self.path / file).read_text().splitlines()]
        except (ManifestInvalid, UnicodeDecodeError) as exc:
            raise RunUnusable(self.path, f"{file} cannot be read", "start a new run") from exc

    def weights(self) -> dict[str, torch.Tensor]:
        """The finished model's state_dict."""
        if not self.has("model.pt"):
            raise RunUnusable(self.path, "its training is not finished", self._finish())
        try:
            state: dict[str, torch.Tensor] = torch.load(self.path / "model.pt", map_location="cpu", weights_only=True)
        except Exception as exc:  # torch.load raises almost anything on a damaged file
            raise RunUnusable(self.path, "model.pt cannot be read", f"delete it and {self._finish()}") from exc
        return state

    def find(self, file: str, kind: type[T]) -> T | None:
        """The record that a stage may have left."""
        return self._read(file, kind, "") if self.has(file) else None

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def write(self, file: str, record: Any) -> None:
        """A dataclass or plain JSON value."""
        write_json(self.path / file, dataclasses.asdict(record) if dataclasses.is_dataclass(record) else record)  # type: ignore[arg-type]  # an instance, never a class

    def write_bytes(self, file: str, data: bytes) -> None:
        replace(self.path / file, data)

    def _finish(self) -> str:
        return f"finish it with: anther train --resume {self.path}"

    def _read(self, file: str, kind: type[T], advice: str) -> T:
        try:
            record = schema.parse((self.path / file).read_text())
            return record if kind is dict else schema.read(kind, record)
        except FileNotFoundError as exc:
            raise RunUnusable(self.path, f"it has no {file}", advice) from exc
        except (ManifestInvalid, RecipeInvalid, UnicodeDecodeError) as exc:
            raise RunUnusable(self.path, f"{file} cannot be read ({exc})", "start a new run") from exc


def require_name(name: str) -> None:
    """Raises `RecipeInvalid` on what cannot be a model's name."""
    if not valid_name(name):
        raise RecipeInvalid("name", name, "a-z, 0-9, '.', '_' and '-', at most 64")


def create(request: TrainingRequest, weights_identity: str, recipe: Recipe) -> Run:
    """A new run's folder with its recipe and source in it. Raises `RecipeInvalid` on a bad name."""
    require_name(request.name)
    now = datetime.now(UTC)
    run = Run(_new_folder(request.runs / request.name, now.strftime(_FOLDER_TIME)))
    source = Source(
        name=request.name,
        created=now.isoformat(timespec="seconds"),
        data=str(request.data.resolve()),
        weights=request.weights,
        weights_identity=weights_identity,
        strict=request.strict,
        run=uuid.uuid4().hex,
        path_column=request.columns.path,
        label_column=request.columns.label,
    )
    _write_start(run, source, recipe)
    return run


def derive(base: Run, folder: Path, recipe: Recipe) -> Run:
    """A run in `folder` on the photos and split of `base`. One that exists already is returned as it is."""
    run = Run(folder)
    if not run.has("split.json"):
        _write_start(run, dataclasses.replace(base.source(), run=uuid.uuid4().hex), recipe)
        for file in ("check.json", PHOTOS, "split.json"):
            run.write_bytes(file, (base.path / file).read_bytes())
    return run


def every(runs: Path) -> Iterator[Run]:
    """The runs in a model's folder, newest first."""
    if not runs.is_dir():
        return
    folders = [path for path in runs.iterdir() if path.is_dir() and not path.name.startswith(".")]
    yield from map(Run, sorted(folders, reverse=True))


def _write_start(run: Run, source: Source, recipe: Recipe) -> None:
    run.write("source.json", source)
    recorded: dict[str, Scalar] = recipe.record()
    run.write(RECIPE, recorded)
    run.write_bytes("recipe.toml", toml.write(recipe).encode())


def _new_folder(parent: Path, stamp: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:  # another run began in the same second
            number += 1
            continue
        return folder
