"""The folder of one training: `runs/<name>/<UTC time>/`, and what each stage leaves in it."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from bundle import schema
from bundle.errors import ManifestInvalid
from bundle.manifest import Calibration, Reference, valid_name
from training.config import Recipe, Scalar
from training.dataset.split import Split
from training.errors import RecipeInvalid, RunUnusable
from training.evaluation.evaluate import Evaluation
from training.files import write_atomic, write_json

T = TypeVar("T")

RECIPE = "recipe.json"
_FOLDER_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Source:
    """What the run is made from."""

    name: str  # of the model
    created: str  # ISO 8601, UTC
    data: str  # folder of photos
    weights: str  # 'imagenet', 'none' or a path
    weights_identity: str  # 'imagenet', 'none' or the SHA-256 of the file


@dataclass(frozen=True)
class Calibrated:
    """What validation says of the finished model."""

    calibration: Calibration
    reference: Reference


@dataclass(frozen=True)
class Run:
    """Reads raise `RunUnusable` where a stage has not left its record yet, or left another one."""

    path: Path

    def recipe(self) -> Recipe:
        return self._read(RECIPE, Recipe, "train it first")

    def source(self) -> Source:
        return self._read("source.json", Source, "train it first")

    def split(self) -> Split:
        return self._read("split.json", Split, "train it first")

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

    def has(self, file: str) -> bool:
        return (self.path / file).exists()

    def write(self, file: str, record: Any) -> None:
        """A dataclass or plain JSON value."""
        write_json(self.path / file, dataclasses.asdict(record) if dataclasses.is_dataclass(record) else record)  # type: ignore[arg-type]  # an instance, never a class

    def write_bytes(self, file: str, data: bytes) -> None:
        write_atomic(self.path / file, data)

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


def create(runs: Path, name: str, data: Path, weights: str, identity: str, recipe: Recipe) -> Run:
    """A new run's folder with its recipe and source in it. Raises `RecipeInvalid` on a bad name."""
    if not valid_name(name):
        raise RecipeInvalid("name", name, "a-z, 0-9, '.', '_' and '-', at most 64")
    now = datetime.now(UTC)
    run = Run(_new_folder(runs / name, now.strftime(_FOLDER_TIME)))
    run.write("source.json", Source(name, now.isoformat(timespec="seconds"), str(data.resolve()), weights, identity))
    recorded: dict[str, Scalar] = recipe.record()
    run.write(RECIPE, recorded)
    return run


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
