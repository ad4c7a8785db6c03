"""Quotas hold over any time, whoever asks how; what is refused is told a wait after which it passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import QuotaExceeded
from service.identity.quota import Bucket, Usage
from service.identity.tokens import Token

rates = st.floats(0.1, 1000)
costs = st.integers(1, 100)
steps = st.lists(st.tuples(st.floats(0, 5), costs), min_size=1, max_size=60)


@given(rates, steps)
def test_no_stretch_of_time_gets_more_than_its_rate_a_bucketful_and_one_request(
    rate: float, steps: list[tuple[float, int]]
) -> None:
    bucket, now, passed = Bucket(), 100.0, [(100.0, 0.0)]
    for pause, cost in steps:
        now += pause
        if bucket.wait_s(cost, rate, now) == 0:
            bucket.take(cost)
            passed.append((now, float(cost)))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            got = sum(cost for _, cost in passed[first : last + 1])
            allowed = rate * (passed[last][0] - passed[first][0]) + max(1.0, rate) + passed[last][1]
            assert got <= allowed * (1 + 1e-9)


@given(rates, steps)
def test_whoever_waits_as_told_passes(rate: float, steps: list[tuple[float, int]]) -> None:
    bucket, now = Bucket(), 100.0
    for pause, cost in steps:
        now += pause
        wait_s = bucket.wait_s(cost, rate, now)
        now += wait_s * (1 + 1e-9) + 1e-9
        assert bucket.wait_s(cost, rate, now) == pytest.approx(0, abs=1e-6)
        bucket.take(cost)


def test_a_request_over_one_rate_is_charged_to_neither() -> None:
    usage = Usage()
    token = Token("shop", "0" * 64, ("classify",), requests_per_second=2, images_per_second=10)
    usage.charge(token, 10, now=0)
    with pytest.raises(QuotaExceeded, match=r"10 images a second.* in 1\.00 s"):
        usage.charge(token, 10, now=0)
    usage.charge(token, 0, now=0)  # the second request


def test_calls_in_flight_are_counted_until_they_leave() -> None:
    usage, token = Usage(), Token("shop", "0" * 64, ("classify",), in_flight=1)
    usage.enter(token)
    with pytest.raises(QuotaExceeded, match="calls in flight: 1"):
        usage.enter(token)
    usage.leave()
    usage.enter(token)
