"""Is a difference between two models on the same photos more than chance?"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Measure = Callable[[Floats, Ints], float]
"""Of probabilities [N, C] and class indices [N]; less is better."""

_RESAMPLES = 1000


def mcnemar(one: int, other: int) -> float:
    """Two-sided p-value that two models are equally good, of which each alone is right on so many photos.

    Exact form of McNemar's test (McNemar 1947, "Note on the Sampling Error of the Difference Between Correlated
    Proportions or Percentages", Psychometrika 12): of the photos on which exactly one is right, each is right on half.
    """
    return min(1.0, 2 * at_most(min(one, other), one + other))


def at_most(successes: int, n: int) -> float:
    """Probability of at most `successes` heads in `n` throws of a fair coin."""
    return float(binom.cdf(successes, n, 0.5))


def worse_share(ours: Floats, theirs: Floats, targets: Ints, measure: Measure, seed: int = 0) -> float:
    """In what share of resamples of the photos, drawn with replacement, `ours` measures worse than `theirs`.

    Paired bootstrap (Efron 1979, "Bootstrap Methods", Annals of Statistics 7): both are measured on the same resample.
    """
    draw = np.random.default_rng(seed)
    worse = 0
    for _ in range(_RESAMPLES):
        taken = draw.integers(0, len(targets), len(targets))
        worse += measure(ours[taken], targets[taken]) > measure(theirs[taken], targets[taken])
    return worse / _RESAMPLES
