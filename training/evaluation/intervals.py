"""95 % confidence intervals of measured numbers, each with its source."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Statistic = Callable[[Ints], npt.NDArray[np.float64]]
"""Counts int64 [B, C, C] to float64 [B]."""

_Z95 = 1.959963984540054  # the standard normal quantile of 0.975
_RESAMPLES = 1000
_COUNTS_AT_ONCE = 2**22  # 32 MiB of int64


def wilson(right: int, n: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, "Probable Inference…", J. Am. Stat. Assoc. 22)."""
    share, z2 = right / n, _Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(center - half, 0.0), min(center + half, 1.0)


def bootstrap(table: Ints, statistic: Statistic, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a statistic of a confusion table [C, C] (Efron 1979, "Bootstrap Methods…").

    Drawing photos with replacement is drawing the cells that they fall into, so each resample is one multinomial draw.
    """
    rng = np.random.default_rng(seed)
    n, shares = int(table.sum()), table.ravel() / table.sum()
    at_once = max(1, min(_RESAMPLES, _COUNTS_AT_ONCE // table.size))
    starts = range(0, _RESAMPLES, at_once)
    drawn = (rng.multinomial(n, shares, min(at_once, _RESAMPLES - start)) for start in starts)
    values = np.concatenate([statistic(counts.reshape(-1, *table.shape)) for counts in drawn])
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
