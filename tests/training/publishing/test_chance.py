import numpy as np
import pytest

from training.evaluation.metrics import negative_log_likelihood
from training.publishing import chance


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (5, 15, 0.04138946533203125), (9, 7, 0.803619384765625)],
)
def test_mcnemars_exact_test_gives_the_published_values(one, other, expected):
    """Twice the tail of the binomial distribution with p = 1/2; 5 of 20 is in every table of the sign test."""
    assert chance.mcnemar(one, other) == pytest.approx(expected, rel=1e-12)


def test_large_counts_neither_overflow_nor_take_long():
    assert chance.mcnemar(4000, 6000) < 1e-80
    assert chance.at_most(20000, 40000) == pytest.approx(0.5, abs=0.01)


def test_a_consistent_loss_is_worse_in_every_resample_and_none_in_none():
    targets = np.arange(40) % 2
    sure = np.where(np.eye(2)[targets] == 1, 0.9, 0.1)
    unsure = np.where(np.eye(2)[targets] == 1, 0.6, 0.4)
    assert chance.worse_share(unsure, sure, targets, negative_log_likelihood) == 1
    assert chance.worse_share(sure, unsure, targets, negative_log_likelihood) == 0


def test_a_difference_that_one_photo_makes_is_often_not_there():
    targets = np.zeros(40, int)
    same = np.tile([0.8, 0.2], (40, 1))
    other = same.copy()
    other[7] = [0.1, 0.9]
    share = chance.worse_share(other, same, targets, negative_log_likelihood)
    assert share == pytest.approx(1 - (1 - 1 / 40) ** 40, abs=0.05)
    assert share == chance.worse_share(other, same, targets, negative_log_likelihood), (
        "the same photos, the same answer"
    )
