"""How long each of two models takes for a picture, measured in turn so that a busy machine slows both alike."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

_LEAST, _MOST = 10, 200  # rounds
_BUDGET_S = 3.0  # after which no round begins once there are enough

Answer = Callable[[bytes], object]


def compare(
    first: Answer, second: Answer, pictures: Sequence[bytes], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Median milliseconds of each for one encoded picture, over rounds in which both answer the same one.

    The first round is not counted: it fills caches and pools. Who begins changes from round to round.
    """
    taken: tuple[list[float], list[float]] = ([], [])
    began = clock()
    for index, picture in zip(range(_MOST), itertools.cycle(pictures), strict=False):
        if index > _LEAST and clock() - began > _BUDGET_S:
            break
        order = ((0, first), (1, second)) if index % 2 == 0 else ((1, second), (0, first))
        for place, answer in order:
            start = clock()
            answer(picture)
            if index:
                taken[place].append(1000 * (clock() - start))
    return statistics.median(taken[0]), statistics.median(taken[1])
