"""A small soak through each protocol, and that its reckoning finds what it looks for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.tally import Outcome, Tally
from benchmarks.vitals import Vitals
from tests.faults.dialects import DIALECTS, Found
from tests.faults.reckoning import Reckoning, Stand
from tests.faults.soak import Picture, Subject, soak, subject, wrong

CALLS, CANCELS = 600, 0.05
ROOM = Vitals(memory=10**8, descriptors=20, threads=10, cpu_s=1.0)


@pytest.fixture(scope="module")
def secured(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with subject(models, tmp_path_factory.mktemp("soak")) as found:
        yield found


@pytest.mark.parametrize("protocol", DIALECTS)
def test_callers_who_give_up_under_tls_with_tokens_harm_nobody(secured: Subject, protocol: str) -> None:
    found = soak(secured, protocol, CALLS, CANCELS)
    assert found.reasons() == []
    assert found.figures()["callers"]["CANCELLED"] > 0  # or nothing was tried
    secured.victim.prove_log()


@pytest.fixture
def right() -> Reckoning:
    """Of ten calls, of which one was given up."""
    tally = Tally()
    for code in ["OK"] * 9 + ["CANCELLED"]:
        tally.add("shop", frozenset({"OK", "CANCELLED"}), [Outcome(code)], 0.01)
    counted = Counter({"OK": 9, "CANCELLED": 1})
    before, after = Stand(Counter(), {}, 0, ROOM), Stand(counted, {"shop": counted}, 0, ROOM)
    return Reckoning(10, tally, [ROOM] * 12, before, after, seconds=1)


def test_what_is_right_has_no_reasons(right: Reckoning) -> None:
    assert right.reasons() == []
    answered_in_vain = Counter({"OK": 10})
    never_came = Counter({"OK": 9})
    for counted in (answered_in_vain, never_came):
        assert replace(right, after=Stand(counted, {"shop": counted}, 0, ROOM)).reasons() == []


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ({"OK": 8, "CANCELLED": 1}, "8 calls counted as OK"),
        ({"OK": 11}, "11 calls counted as OK"),
        ({"OK": 9, "CANCELLED": 2}, "2 calls counted as CANCELLED"),
        ({"OK": 10, "CANCELLED": 1}, "1 calls counted as CANCELLED"),
        ({"OK": 9, "CANCELLED": 1, "INTERNAL": 1}, "calls counted as INTERNAL"),
    ],
)
def test_counters_that_differ_from_the_tally_are_told(right: Reckoning, codes: dict[str, int], reason: str) -> None:
    whole = replace(right, after=replace(right.after, codes=Counter(codes)))
    of_one = replace(right, after=replace(right.after, of_callers={"shop": Counter(codes)}))
    for found, of in ((whole, "the server"), (of_one, "shop")):
        (told,) = found.reasons()
        assert told.startswith(f"{of}: {reason}")


def test_what_is_lost_held_or_swapped_is_told(right: Reckoning) -> None:
    assert replace(right, calls=11).reasons() == ["1 calls have not ended"]
    inflight = replace(right, after=replace(right.after, inflight=2))
    assert inflight.reasons() == ["2 calls are counted as in flight when all have ended"]
    more = Vitals(memory=2 * 10**8, descriptors=40, threads=30, cpu_s=2.0)
    grown = replace(right, samples=[ROOM] * 18 + [more] * 6, after=replace(right.after, vitals=more))
    assert [reason.partition(" ")[0] for reason in grown.reasons()] == ["memory", "threads", "descriptors", "40"]
    picture = Picture(b"", (0.25, 0.75))
    assert wrong(Found("shop-1", (0.25, 0.75)), "shop-1", picture) == ""
    assert "the answer to shop-2" in wrong(Found("shop-2", (0.25, 0.75)), "shop-1", picture)
    assert "(0.26, 0.74)" in wrong(Found("shop-1", (0.26, 0.74)), "shop-1", picture)
