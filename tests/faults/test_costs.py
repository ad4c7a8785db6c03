"""Images that a server lets in cost what their header was taken for, and others are refused without being read.

The bounds are in processor time, beside what an ordinary image takes here, so that a slow or busy machine is no fault.
"""

import pytest

from tests.faults.bombs import COSTLY, HIDDEN, Recipe
from tests.faults.recipes import Jpeg
from tests.faults.search import SPARE, Cost, cost

MOST_OF_A_WALK_S = 1.0  # beside what an ordinary image takes less; what is refused would take several
TIMES = 6  # that the worst image may take of what was said; the worst that the search found takes 4


@pytest.fixture(scope="module")
def pace() -> float:
    """How many times as long as said an ordinary image takes here; at least 1."""
    costs = [cost(Jpeg((2000, 1500), "smooth").build()) for _ in range(3)]
    return max(1.0, sorted(found.used / found.said for found in costs)[1])


def of(recipe: Recipe) -> Cost:
    return cost(recipe.build())


@pytest.mark.parametrize("name", HIDDEN)
def test_work_that_pixels_do_not_explain_is_refused_unread(name: str, pace: float) -> None:
    found = of(HIDDEN[name])
    assert found.end == "ImageTooCostly"
    assert found.examined < MOST_OF_A_WALK_S * pace
    assert found.memory < SPARE / 4


@pytest.mark.parametrize("name", COSTLY)
def test_the_costliest_images_that_are_let_in_cost_what_was_said(name: str, pace: float) -> None:
    found = of(COSTLY[name])
    assert found.end == "OK"
    assert found.used < TIMES * pace * (found.said + 0.01)
    assert found.memory < found.allowed
