"""Times two models in turn, so that a busy machine slows both alike."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

_MIN_ROUNDS, _MAX_ROUNDS = 10, 200  # rounds
_BUDGET_S = 3.0  # no round begins after it, once there are enough

Photo = TypeVar("Photo")


def compare(
    first: Callable[[Photo], object],
    second: Callable[[Photo], object],
    photos: Sequence[Photo],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median milliseconds of each for one photo, over rounds in which both answer the same one.

    The first round is not counted, because it fills caches and pools. The models take turns in going first.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    began = clock()
    for index, photo in zip(range(_MAX_ROUNDS), itertools.cycle(photos), strict=False):
        if index > _MIN_ROUNDS and clock() - began > _BUDGET_S:
            break
        order = ((0, first), (1, second)) if index % 2 == 0 else ((1, second), (0, first))
        for place, answer in order:
            start = clock()
            answer(photo)
            if index:
                taken[place].append(1000 * (clock() - start))
    return statistics.median(taken[0]), statistics.median(taken[1])
