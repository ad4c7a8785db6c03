"""The records that the stages of a run leave in its folder."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import schema
from bundle.manifest import Calibration, Metrics, Reference
from training.config import Recipe, Strategy
from training.dataset.data import Undecodable
from training.dataset.tables import USUAL, Columns


@dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained, and where the run's folder goes."""

    data: Path
    name: str
    weights: str  # 'imagenet', 'none' or a path
    runs: Path = Path("runs")
    strict: bool = False  # refuse content that stands under two labels instead of leaving it out
    columns: Columns = USUAL  # of `data`, where it is a table


@dataclass(frozen=True)
class Source:
    """The inputs of the run."""

    name: str  # of the model
    created: str  # ISO 8601, UTC
    data: str  # folder or table of photos
    weights: str  # 'imagenet', 'none' or a path
    weights_identity: str  # 'imagenet', 'none' or the SHA-256 of the file
    strict: bool = field(default=False, metadata=schema.ADDED)  # content under two labels is refused
    run: str | None = field(default=None, metadata=schema.ADDED)  # unlike any other run's; goes into the manifest
    path_column: str = field(default=USUAL.path, metadata=schema.ADDED)  # of a table
    label_column: str = field(default=USUAL.label, metadata=schema.ADDED)

    @property
    def columns(self) -> Columns:
        return Columns(self.path_column, self.label_column)


@dataclass(frozen=True)
class Calibrated:
    """The finished model's calibration, from the validation split."""

    calibration: Calibration
    reference: Reference


@dataclass(frozen=True)
class Depth:
    """Scores of the features after the first `blocks` blocks: shares of photos answered correctly."""

    blocks: int
    linear: float
    knn: float

    @property
    def both(self) -> float:
        """Mean of the scores, which tells depths apart more surely: with few photos the probe alone undervalues many
        features, and one score is as noisy as the photos are few.
        """
        return (self.linear + self.knn) / 2


@dataclass(frozen=True)
class Similarity:
    """Scores of several depths in rising order, the last one the whole network's."""

    photos: int  # scored ones, all of the training split
    chance: float  # share of the largest class: what answering always the same would reach
    depths: tuple[Depth, ...]


@dataclass(frozen=True)
class Chosen:
    """The decision on what a recipe left open, its reasons in two sentences, and the measurement behind it, if any."""

    strategy: Strategy
    keep_blocks: int
    reasons: tuple[str, str]
    similarity: Similarity | None = None

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe with nothing left open."""
        return dataclasses.replace(recipe, strategy=self.strategy, keep_blocks=self.keep_blocks)


@dataclass(frozen=True)
class UnderCorruption:
    """Top-1 on the same photos under one corruption."""

    corruption: str
    top1: float
    top1_interval: tuple[float, float]  # 95 %, Wilson
    lost: float  # top-1 on the clean photos less this one


@dataclass(frozen=True)
class Evaluation:
    """Metrics over `metrics.n` photos. Files that cannot be decoded are listed, and count nowhere else."""

    of: str  # the bundle's or run's folder
    photos: str  # the data folder, or the split's part
    labels: tuple[str, ...]
    metrics: Metrics
    undecodable: tuple[Undecodable, ...] = ()
    seen_in_training: int | None = None  # photos whose content trained or chose the model; None where that is unknown
    corruptions: tuple[UnderCorruption, ...] = field(default=(), metadata=schema.ADDED)  # on request

    def record(self) -> dict[str, Any]:
        """One flat JSON object: the metrics' fields beside the others."""
        record = dataclasses.asdict(self)
        metrics = record.pop("metrics")
        return {**metrics, **record}

    @classmethod
    def read(cls, record: dict[str, Any]) -> "Evaluation":
        """The inverse of `record`. Raises `ManifestInvalid`."""
        names = [field.name for field in dataclasses.fields(Metrics)]
        metrics = {name: record.pop(name) for name in names if name in record}
        return schema.read(cls, {**record, "metrics": metrics})
