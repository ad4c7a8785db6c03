import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import metrics


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
    assert metrics.wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_the_interval_holds_the_share_and_lies_in_0_to_1(n, data):
    right = data.draw(st.integers(0, n))
    low, high = metrics.wilson(right, n)
    assert 0 <= low <= right / n + 1e-12
    assert right / n - 1e-12 <= high <= 1


def test_class_metrics_on_a_table_worked_by_hand():
    table = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    first, second, absent = metrics.class_metrics(table, ("a", "b", "c"))
    assert (first.precision, first.recall, first.support) == pytest.approx((8 / 9, 0.8, 10))
    assert first.f1 == pytest.approx(2 * (8 / 9) * 0.8 / (8 / 9 + 0.8))
    assert (second.precision, second.recall) == pytest.approx((4 / 6, 0.8))
    assert (absent.precision, absent.recall, absent.f1, absent.support) == (0, 0, 0, 0)


def test_measure_puts_it_together():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    found = metrics.measure(probabilities, np.array([0, 1, 1, 1]), ("a", "b", "c"))
    assert (found.n, found.top1) == (4, 0.75)
    assert found.confusion == ((1, 0, 0), (1, 2, 0), (0, 0, 0))
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)  # the class without photos does not count
    assert found.negative_log_likelihood == pytest.approx(-np.log([0.9, 0.6, 0.3, 0.8]).mean())
    assert found.top1_interval == metrics.wilson(3, 4)


def test_calibration_error_worked_by_hand():
    """Two bins: 0.9 sure and 2 of 4 right; 0.65 sure and all right."""
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.35, 0.65]] * 2)
    targets = np.array([0, 0, 1, 1, 1, 1])
    assert metrics.calibration_error(probabilities, targets) == pytest.approx(0.4 * 4 / 6 + 0.35 * 2 / 6)


def test_certain_and_right_is_perfectly_calibrated():
    probabilities = np.eye(3)[[0, 1, 2, 1]]
    assert metrics.calibration_error(probabilities, np.array([0, 1, 2, 1])) == 0


def test_a_true_class_of_probability_zero_costs_a_finite_loss():
    assert metrics.negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(27.63, abs=0.01)


def test_reliability_shares_add_up():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 200)
    bins = metrics.reliability(probabilities, rng.integers(0, 3, 200))
    assert sum(share for _, _, share in bins) == pytest.approx(1)
    assert all(0 <= value <= 1 for row in bins for value in row)
