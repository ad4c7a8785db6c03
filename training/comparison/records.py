"""The candidates and results of a comparison: the rows of `compare.json`."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.config import Backbone, Strategy


@dataclass(frozen=True)
class Candidate:
    """A strategy on a network; all else is the comparison's own recipe."""

    backbone: Backbone
    strategy: Strategy

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.strategy}"


@dataclass(frozen=True)
class Result:
    """What came of a candidate, measured on the validation split."""

    strategy: Strategy  # that was trained: what `auto` became
    keep_blocks: int  # 0 where the network was not cut
    photos: int
    top1: float
    top1_interval: tuple[float, float]  # 95 %
    seconds: float  # of choosing and training, without reading and splitting the photos, which all share
    trainable: int  # numbers that training could change
    parameters: int
    onnx_bytes: int  # of the exported file in fp32


@dataclass(frozen=True)
class Row:
    """A candidate, its run's folder, and its result or why there is none."""

    candidate: Candidate
    run: str
    result: Result | None
    failure: str | None = None


def candidates(backbones: Sequence[Backbone], strategies: Sequence[Strategy]) -> tuple[Candidate, ...]:
    """Every strategy on every network, each once, in the order given."""
    return tuple(dict.fromkeys(Candidate(backbone, strategy) for backbone in backbones for strategy in strategies))


def best(rows: Sequence[Row]) -> Row | None:
    """The most accurate row; among equals the one with fewer numbers to train."""
    done = [row for row in rows if row.result is not None]
    return max(done, key=_merit, default=None)


def _merit(row: Row) -> tuple[float, int]:
    assert row.result is not None
    return row.result.top1, -row.result.trainable
