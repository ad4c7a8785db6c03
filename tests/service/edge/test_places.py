"""Calls in progress are bounded, and one caller cannot have all of them."""

import contextlib

import pytest

from service.edge.places import Place, Places
from service.errors import TooManyCalls


def test_one_caller_has_three_quarters_and_others_the_rest() -> None:
    places = Places(8)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(Place(places, "a"))
        with pytest.raises(TooManyCalls, match="the caller has 6 calls in progress, of at most 6") as refusal:
            places.take("a")
        assert refusal.value.retry_after_s > 0
        for _ in range(2):
            stack.enter_context(Place(places, "b"))
        with pytest.raises(TooManyCalls, match="the server has 8 calls"):
            places.take("c")
    assert (places._taken, dict(places._of_caller)) == (0, {})


def test_a_refused_call_holds_no_place() -> None:
    places = Places(1)
    with Place(places, "a"), pytest.raises(TooManyCalls), Place(places, "b"):
        pytest.fail("there was no place")
    with Place(places, "b"):
        assert places._taken == 1
