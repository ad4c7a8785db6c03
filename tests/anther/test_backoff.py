"""Waits between tries: longer and longer, never without end, and none after a process that ran well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anther.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_success_makes_the_next_wait_short_again() -> None:
    backoff = Backoff(0.1, 5.0)
    assert [backoff.next_s() for _ in range(3)] == pytest.approx([0.1, 0.2, 0.4])
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_a_first_wait_above_the_longest_is_cut() -> None:
    assert Backoff(100.0, 60.0).next_s() == 60.0


def test_a_process_that_ran_well_is_replaced_at_once() -> None:
    backoff = Backoff()
    assert [backoff.after_run(3600.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_one_that_ran_well_makes_the_next_wait_short_again() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.after_run(held_s) for held_s in (0, 0, 0, 60, 0, 0)] == [0.5, 1, 2, 0, 0.5, 1]


def test_jitter_takes_up_to_its_part_of_a_wait_away() -> None:
    waits = {Backoff(8.0, 8.0, jitter=0.5).next_s() for _ in range(100)}
    assert len(waits) > 1
    assert all(4 <= wait <= 8 for wait in waits)


@given(st.lists(st.floats(0, 1e6)), st.floats(0, 1))
def test_no_history_makes_it_wait_longer_than_the_longest(history: list[float], jitter: float) -> None:
    backoff = Backoff(0.5, 30.0, jitter)
    assert all(0 <= backoff.after_run(held_s) <= 30 for held_s in history)
