import numpy as np
import pytest

from training.evaluation import calibrate
from training.evaluation.metrics import negative_log_likelihood


@pytest.fixture
def overconfident():
    """Logits three times larger than the truth that drew the targets."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 4))
    targets = np.array([rng.choice(4, p=row) for row in calibrate.softmax(logits, 1.0)])
    return logits * 3, targets


def test_calibration_lowers_the_loss_and_finds_the_true_temperature(overconfident):
    logits, targets = overconfident
    found = calibrate.calibrate(logits, targets)
    assert found.temperature == pytest.approx(3, rel=0.1)
    before, after = (
        negative_log_likelihood(calibrate.softmax(logits, temperature), targets)
        for temperature in (1.0, found.temperature)
    )
    assert after < before - 0.3


def test_no_other_temperature_does_better(overconfident):
    logits, targets = overconfident
    best = calibrate.best_temperature(logits, targets)
    losses = {
        factor: negative_log_likelihood(calibrate.softmax(logits, best * factor), targets) for factor in (0.9, 1, 1.1)
    }
    assert min(losses, key=losses.get) == 1


def test_softmax_is_stable_and_sums_to_one():
    found = calibrate.softmax(np.array([[1000.0, 999.0], [-1000.0, 0.0]]), 1.0)
    assert found.sum(1) == pytest.approx([1, 1])
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))


def two_classes(confidences):
    return np.array([[value, 1 - value] for value in confidences])


def test_the_threshold_is_the_smallest_that_is_sure_enough():
    """From 0.8 on all are right; at 0.7 one in four is wrong."""
    found = calibrate.abstention(two_classes([0.95, 0.9, 0.8, 0.7]), np.array([0, 0, 0, 1]))
    assert found == (0.8, 1.0, 0.75)


def test_a_dip_in_between_does_not_hide_a_smaller_threshold():
    """One mistake at 0.99 weighs little among two hundred right answers."""
    confidences, targets = [0.99] + [0.6] * 200, [1] + [0] * 200
    threshold, precision, coverage = calibrate.abstention(two_classes(confidences), np.array(targets))
    assert (threshold, coverage) == (0.6, 1.0)
    assert precision == pytest.approx(200 / 201)


def test_where_nothing_is_sure_enough_nothing_is_confident():
    assert calibrate.abstention(two_classes([0.9, 0.8]), np.array([1, 1])) == (1.0, 0.0, 0.0)
    assert calibrate.abstention(two_classes([1.0, 0.8]), np.array([1, 1])) == (1.0, 0.0, 0.5)


def test_few_photos_make_a_promise_of_little_worth():
    """Ten of ten right is 100 % precise, but 72 % is all that ten photos vouch for."""
    few = calibrate.calibrate(np.array([[4.0, 0.0]] * 10), np.zeros(10, np.int64))
    many = calibrate.calibrate(np.array([[4.0, 0.0]] * 1000), np.zeros(1000, np.int64))
    assert few.precision_at_threshold == many.precision_at_threshold == 1
    assert few.precision_lower_bound == pytest.approx(0.7225, abs=1e-3)
    assert many.precision_lower_bound > 0.99


def test_where_nothing_is_sure_enough_nothing_is_vouched_for():
    found = calibrate.calibrate(np.array([[1.0, 0.0]] * 10), np.array([0, 1] * 5))
    assert (found.threshold, found.precision_lower_bound) == (1.0, 0.0)


def test_the_reference_counts_every_answer_once():
    probabilities = np.array([[0.9, 0.1], [1.0000001, 0.0], [0.4, 0.6]])
    found = calibrate.reference(probabilities, np.array([0.0, 255.0, 120.0]), ("a", "b"))
    assert found.predicted == {"a": 2, "b": 1}
    assert sum(found.confidence.counts) == sum(found.brightness.counts) == 3
    assert found.confidence.edges[0] == 0
    assert found.brightness.edges[-1] == 255
