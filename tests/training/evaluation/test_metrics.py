import numpy as np
import pytest

from bundle.manifest import Calibration
from training.evaluation import metrics
from training.evaluation.calibrate import softmax
from training.evaluation.intervals import wilson


def test_class_metrics_on_a_table_worked_by_hand():
    table = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    first, second, absent = metrics.class_metrics(table, ("a", "b", "c"))
    assert (first.precision, first.recall, first.support) == pytest.approx((8 / 9, 0.8, 10))
    assert first.f1 == pytest.approx(2 * (8 / 9) * 0.8 / (8 / 9 + 0.8))
    assert (second.precision, second.recall) == pytest.approx((4 / 6, 0.8))
    assert (absent.precision, absent.recall, absent.f1, absent.support) == (0, 0, 0, 0)
    assert (first.recall_interval, first.precision_interval) == (wilson(8, 10), wilson(8, 9))
    assert (absent.recall_interval, absent.precision_interval) == (None, None)


def test_measure_puts_it_together():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    found = metrics.measure(probabilities, np.array([0, 1, 1, 1]), ("a", "b", "c"))
    assert (found.n, found.top1) == (4, 0.75)
    assert found.confusion == ((1, 0, 0), (1, 2, 0), (0, 0, 0))
    assert found.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)  # the class without photos does not count
    assert found.negative_log_likelihood == pytest.approx(-np.log([0.9, 0.6, 0.3, 0.8]).mean())
    assert found.top1_interval == wilson(3, 4)


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
    assert sum(row.share for row in bins) == pytest.approx(1)
    assert all(0 <= value <= 1 for row in bins for value in (row.confidence, row.accuracy, row.share))


def test_top_k_counts_the_true_class_among_the_k_likeliest():
    """Half of the classes for few, five from ten on, and nothing for two."""
    probabilities = np.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    found = metrics.top_k(probabilities, np.array([1, 2, 3]))
    assert (found.k, found.share, found.interval) == (2, 2 / 3, wilson(2, 3))
    assert metrics.top_k(np.full((1, 20), 0.05), np.array([3])).k == 5
    assert metrics.top_k(np.array([[0.4, 0.6]]), np.array([0])) is None


def test_the_brier_score_worked_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    assert metrics.brier(probabilities, np.array([0, 2])) == pytest.approx((0.3**2 + 0.2**2 + 0.1**2 + 2) / 2)


def test_what_was_before_calibration_is_found_from_the_calibrated_answers():
    """The bundle's graph gives probabilities at its temperature; the bare logits follow from them."""
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 6, (500, 4)), rng.integers(0, 4, 500)
    bare, tempered = softmax(logits, 1.0), softmax(logits, 2.5)
    calibration = Calibration(2.5, 0.6, 1.0, 1.0)
    found = metrics.measure(tempered.astype(np.float32), targets, ("a", "b", "c", "d"), calibration)
    before = found.uncalibrated
    assert before.negative_log_likelihood == pytest.approx(metrics.negative_log_likelihood(bare, targets), rel=1e-5)
    assert before.expected_calibration_error == pytest.approx(metrics.calibration_error(bare, targets), abs=1e-5)
    assert before.brier == pytest.approx(metrics.brier(bare, targets), rel=1e-5)
    assert before.reliability != found.reliability
    assert found.confident.threshold == 0.6
    assert found.confident.coverage == pytest.approx((tempered.max(1) >= 0.6).mean())


def test_macro_f1_of_many_tables_is_that_of_each():
    tables = np.random.default_rng(0).integers(0, 5, (7, 3, 3))
    tables[0, 1] = 0  # a class without photos does not count
    alone = [
        np.mean([row.f1 for row in metrics.class_metrics(table, ("a", "b", "c")) if row.support]) for table in tables
    ]
    assert metrics.macro_f1(tables) == pytest.approx(alone)


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
