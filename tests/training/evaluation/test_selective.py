import numpy as np
import pytest

from training.evaluation import metrics


def test_risk_over_coverage_worked_by_hand():
    """Surest first: right, wrong, right, wrong."""
    confidence, correct = np.array([0.6, 0.9, 0.7, 0.8]), np.array([False, True, True, False])
    risk = metrics.risk_coverage(confidence, correct)
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    assert metrics.thinned(risk) == ((0.25, 0.0), (0.5, 0.5), (0.75, pytest.approx(1 / 3)), (1.0, 0.5))


def test_a_model_that_knows_when_it_errs_has_the_smaller_area():
    correct = np.array([True] * 90 + [False] * 10)
    knows, guesses = np.linspace(1, 0, 100), np.linspace(0, 1, 100)
    areas = [metrics.risk_coverage(confidence, correct).mean() for confidence in (knows, guesses)]
    assert areas[0] == pytest.approx(sum(k / (90 + k) for k in range(1, 11)) / 100)
    assert areas[1] > 3 * areas[0]


def test_the_order_of_equally_sure_answers_does_not_matter():
    confidence, correct = np.full(10, 0.8), np.array([True] * 7 + [False] * 3)
    for order in (correct, correct[::-1]):
        assert metrics.risk_coverage(confidence, order) == pytest.approx([0.3] * 10)


def test_a_long_curve_is_thinned_to_a_hundred_points_and_keeps_its_end():
    risk = np.linspace(0, 0.5, 12345)
    points = metrics.thinned(risk)
    assert len(points) == 100
    assert points[-1] == (1.0, 0.5)


def test_what_the_threshold_accepts():
    confidence, correct = np.array([0.9, 0.95, 0.5, 0.99]), np.array([True, False, False, True])
    found = metrics.confident(confidence, correct, 0.9)
    assert (found.precision, found.coverage) == (pytest.approx(2 / 3), 0.75)
    low, high = found.precision_interval
    assert low < 2 / 3 < high
    assert metrics.confident(confidence, correct, 1.0) == metrics.Confident(1.0, 0.0, None, 0.0)
