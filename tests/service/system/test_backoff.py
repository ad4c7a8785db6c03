"""Waits between tries: none after one that held, longer and longer after others, never without end."""

from hypothesis import given
from hypothesis import strategies as st

from service.system.backoff import Backoff


def test_what_held_is_tried_again_at_once() -> None:
    backoff = Backoff()
    assert [backoff.after(3600.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_waits_double_up_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [backoff.after(0.1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_one_that_held_makes_the_next_wait_short_again() -> None:
    backoff = Backoff()
    assert [backoff.after(held_s) for held_s in (0, 0, 0, 60, 0, 0)] == [0.5, 1, 2, 0, 0.5, 1]


@given(st.lists(st.floats(0, 1e6)))
def test_no_history_makes_it_wait_longer_than_half_a_minute(history: list[float]) -> None:
    backoff = Backoff()
    assert all(0 <= backoff.after(held_s) <= 30 for held_s in history)
