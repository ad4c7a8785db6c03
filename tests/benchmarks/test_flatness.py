"""Growth is told from warm-up, from peaks and from noise."""

import random

import pytest

from benchmarks.flatness import flatness


def test_what_stays_is_flat() -> None:
    found = flatness([5.0] * 60, least=0)
    assert (found.early, found.late, found.most, found.flat) == (5.0, 5.0, 5.0, True)


def test_warm_up_and_peaks_are_no_growth() -> None:
    samples = [1.0, 3.0, 7.0, 9.0, *[10.0] * 20]
    samples[15] = samples[-2] = 500.0
    found = flatness(samples, least=0)
    assert found.flat
    assert found.most == 500.0


def test_slow_growth_under_noise_is_growth() -> None:
    chance = random.Random(0)
    leaking = [100 + 0.2 * number + chance.gauss(0, 3) for number in range(120)]
    assert not flatness(leaking, least=10).flat
    assert flatness([100 + chance.gauss(0, 3) for _ in range(120)], least=10).flat


@pytest.mark.parametrize(
    ("least", "share", "flat"), [(9, 0.0, False), (10, 0.0, True), (0, 0.09, False), (0, 0.1, True)]
)
def test_the_larger_allowance_counts(least: float, share: float, flat: bool) -> None:
    samples = [100.0] * 8 + [110.0] * 4
    assert flatness(samples, least, share).flat is flat
    assert flatness(samples, 10, share).flat


def test_shrinking_is_flat() -> None:
    assert flatness(list(map(float, range(60, 0, -1))), least=0).flat


def test_too_few_samples_are_refused() -> None:
    assert flatness([1.0] * 6, least=0).flat
    with pytest.raises(ValueError, match="expected 6 samples or more, got 5"):
        flatness([1.0] * 5, least=0)
