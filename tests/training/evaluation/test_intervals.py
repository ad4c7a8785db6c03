import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import intervals
from training.evaluation.metrics import macro_f1


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, "Two-sided confidence intervals…", table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(right, n, low, high):
    assert intervals.wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_the_interval_holds_the_share_and_lies_in_0_to_1(n, data):
    right = data.draw(st.integers(0, n))
    low, high = intervals.wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1


def accuracy(tables):
    return np.trace(tables, axis1=1, axis2=2) / tables.sum((1, 2))


def test_the_bootstrap_of_a_proportion_is_about_its_wilson_interval():
    """Where both apply they must agree: 270 of 300 right."""
    table = np.array([[140, 10], [20, 130]])
    assert intervals.bootstrap(table, accuracy) == pytest.approx(intervals.wilson(270, 300), abs=0.012)


def test_the_bootstrap_is_the_same_every_time_and_narrows_with_more_photos():
    few, many = np.array([[8, 2], [1, 9]]), np.array([[800, 200], [100, 900]])
    assert intervals.bootstrap(few, macro_f1) == intervals.bootstrap(few, macro_f1)
    (low, high), (closer_low, closer_high) = (intervals.bootstrap(table, macro_f1) for table in (few, many))
    assert closer_high - closer_low < (high - low) / 5
    assert low <= macro_f1(few) <= high


def test_the_bootstrap_of_many_classes_is_drawn_in_parts():
    """A thousand classes: 1,000 resamples at once would take 8 GB."""
    seen = []

    def largest(tables):
        seen.append(tables.size)
        return accuracy(tables)

    low, high = intervals.bootstrap(np.eye(1000, dtype=np.int64), largest)
    assert (low, high) == (1, 1)
    assert max(seen) <= 2**22
    assert sum(seen) == 1000 * 1000**2
