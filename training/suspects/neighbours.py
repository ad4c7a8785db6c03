"""Nearest neighbours of every row among all others, and the rows that are far from all.

Distances are computed in blocks: memory grows with the number of rows, not with its square.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training.progress import Reporter

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_ROWS, _COLUMNS = 1024, 16384  # a block of distances takes 64 MiB
_NEIGHBOURS = 10  # whose mean distance tells an outlier
_FENCE = 3  # interquartile ranges; Tukey 1977, "Exploratory Data Analysis", calls what is beyond "far out"


@dataclass(frozen=True)
class Neighbours:
    """Of each of N rows the k nearest others, nearest first: Euclidean distances [N, k] and their rows [N, k]."""

    distances: Floats
    rows: Ints


def nearest(vectors: Floats, k: int, reporter: Reporter, what: str) -> Neighbours:
    """Exact search among float32 [N, D]; k is at most N - 1."""
    rows = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
    squares = rows.square().sum(1)
    k = min(k, len(rows) - 1)
    starts = range(0, len(rows), _ROWS)
    found = [_block(rows, squares, start, k) for start in reporter.track(starts, what, math.ceil(len(rows) / _ROWS))]
    distances, indices = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return Neighbours(distances, indices)


def unit(vectors: Floats) -> Floats:
    """Rows of length 1, or of 0 where there is next to nothing: then distance² = 2 - 2 · cosine."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Floats = np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), 0).astype(np.float32)
    return found


def _block(rows: torch.Tensor, squares: torch.Tensor, start: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    mine = rows[start : start + _ROWS]
    own = torch.arange(start, start + len(mine))
    best = torch.full((len(mine), k), torch.inf)
    where = torch.zeros((len(mine), k), dtype=torch.int64)
    for column in range(0, len(rows), _COLUMNS):
        others = rows[column : column + _COLUMNS]
        distances = squares[column : column + _COLUMNS] - 2 * mine @ others.T  # less the row's own square
        itself = own - column
        inside = (itself >= 0) & (itself < len(others))
        distances[inside.nonzero()[:, 0], itself[inside]] = torch.inf
        near, places = distances.topk(min(k, len(others)), largest=False)
        best, chosen = torch.cat([best, near], 1).topk(k, largest=False)
        where = torch.cat([where, places + column], 1).gather(1, chosen)
    return (best + squares[own, None]).clamp(min=0).sqrt(), where


def outliers(features: Floats, reporter: Reporter) -> tuple[Ints, Floats]:
    """Rows far from all others, the farthest first, and of every row how many interquartile ranges it is out [N].

    The distance is the mean to the ten nearest in standardised features [N, D] (after Ramaswamy, Rastogi & Shim 2000,
    "Efficient Algorithms for Mining Outliers"). Features from half-way up a network serve best: the last ones know only
    what the classes are told by, and find a photo of noise quite usual.
    """
    deviation = features.std(0)
    scale: Floats = np.where(deviation > 1e-6 * deviation.max(), deviation, np.inf)
    standard: Floats = (features - features.mean(0)) / scale
    distances = nearest(standard, _NEIGHBOURS, reporter, "Looking for outliers").distances.mean(1)
    low, high = np.quantile(distances, [0.25, 0.75])
    out: Floats = (distances - high) / max(high - low, 1e-6 * high, 1e-12)
    rows = np.flatnonzero(out > _FENCE)
    return rows[np.argsort(-out[rows], kind="stable")], out
