"""Rests are as long as the work before them asks for, whatever else passes the time."""

import time

import pytest

from service.versions.throttle import Throttle


class Clock:
    """Processor time that a test lets pass, and the rests that were taken."""

    def __init__(self) -> None:
        self.computed = 0.0
        self.rests: list[float] = []
        self.throttle = Throttle(3.0, self.rests.append, lambda: self.computed)

    def work(self, seconds: float) -> None:
        self.computed += seconds
        self.throttle()


def test_a_rest_is_three_times_as_long_as_the_work_before_it() -> None:
    clock = Clock()
    for seconds in (0.01, 0.0, 0.03):
        clock.work(seconds)
    assert clock.rests == pytest.approx([0.03, 0.0, 0.09])


def test_no_rest_is_longer_than_a_fifth_of_a_second() -> None:
    clock = Clock()
    clock.work(60.0)
    assert clock.rests == [0.2]


def test_only_what_the_thread_itself_computes_counts() -> None:
    rests: list[float] = []
    throttle = Throttle(1.0, rests.append)
    throttle()
    time.sleep(0.05)
    throttle()
    ends = time.thread_time() + 0.02
    while time.thread_time() < ends:
        pass
    throttle()
    assert rests[1] < 0.02 <= rests[2]
