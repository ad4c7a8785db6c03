import numpy as np
import pytest

from training.suspects.labels import out_of_fold, suspected


@pytest.fixture
def clusters():
    """Three well parted clouds of 30 rows, and their class indices."""
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], 30)
    return (4 * np.eye(3)[targets] + rng.normal(0, 0.5, (90, 3))).astype(np.float32), targets


def test_swapped_labels_are_found_and_nothing_else(clusters):
    features, targets = clusters
    given = targets.copy()
    given[[4, 50]] = [2, 0]
    probabilities = out_of_fold(features, given, np.arange(90) % 5, 3)
    rows, suggested = suspected(probabilities, given, 5)
    assert sorted(rows) == [4, 50]
    assert dict(zip(rows.tolist(), suggested.tolist(), strict=True)) == {4: 0, 50: 1}


def test_clean_labels_raise_no_suspicion(clusters):
    features, targets = clusters
    rows, _ = suspected(out_of_fold(features, targets, np.arange(90) % 3, 3), targets, 3)
    assert rows.size == 0


def test_a_photo_is_judged_by_models_that_never_saw_it(clusters):
    """Its own label, whatever it is, cannot change what is said of it."""
    features, targets = clusters
    folds, other = np.arange(90) % 5, targets.copy()
    other[0] = 2
    first, second = (out_of_fold(features, given, folds, 3)[folds == 0] for given in (targets, other))
    assert np.array_equal(first, second)
    assert first.sum(1) == pytest.approx(np.ones(18))


def test_confident_learning_worked_by_hand():
    """Usual for class 0 is 0.6, for class 1 0.7: row 1 reaches both and prefers the other, row 3 reaches none."""
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.1, 0.9], [0.5, 0.5], [0.3, 0.7]])
    targets = np.array([0, 0, 1, 1, 1])
    rows, suggested = suspected(probabilities, targets, 1)
    assert (rows.tolist(), suggested.tolist()) == ([1], [1])


def test_the_most_doubtful_comes_first_and_rare_classes_are_not_judged():
    probabilities = np.array([[0.9, 0.1, 0.0]] * 5 + [[0.3, 0.7, 0.0], [0.1, 0.9, 0.0]] + [[0.1, 0.9, 0.0]] * 5)
    targets = np.array([0] * 7 + [1] * 4 + [2])
    rows, _ = suspected(probabilities, targets, 3)
    assert rows.tolist() == [6]
    probabilities[5] = [0.05, 0.95, 0.0]
    assert suspected(probabilities, targets, 3)[0].tolist() == [5, 6]
