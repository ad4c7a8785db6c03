"""Plain numbers a version: pictures, requests, stages, and runs of the engine by their size."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.core.answers import PixelsAnswer, Prediction, Timings, Top
from service.core.call import Call, Caller
from service.core.recorder import End
from service.core.statistics import Compute, Counts, Duration, Statistics
from service.scheduling.scheduler import RunTiming

CALL = Call("grpc", Caller("192.0.2.1"))
WHERE = ("flowers", "1")
TIMINGS = Timings(queue=0.5, decode=0.25, preprocess=0.125, inference=1.0, postprocess=0.0625)
ALONE = (RunTiming(0.5, 1.0),)
TOP = Top(Prediction("daisy", 0, 0.75), True)


@dataclass(frozen=True)
class Model:
    labels: tuple[str, str]


def answer(where: tuple[str, str], images: int, runs: Sequence[RunTiming]) -> PixelsAnswer:
    return PixelsAnswer(Model(where), None, (TOP,) * images, TIMINGS, tuple(runs))


def test_a_version_that_answered_nothing_has_zeros() -> None:
    assert Statistics().of(WHERE) == Counts()
    assert Statistics().of(WHERE).runs == 0


def test_an_answer_counts_its_picture_and_the_time_of_each_stage() -> None:
    statistics = Statistics()
    statistics.answered(answer(WHERE, 1, ALONE))
    found = statistics.of(WHERE)
    assert (found.images, found.runs) == (1, 1)
    assert found.queue_ns == 500_000_000
    assert found.compute == Compute(1, before=375_000_000, inside=1_000_000_000, after=62_500_000)
    assert found.by_size == {1: found.compute}
    assert found.last_ms > 1_700_000_000_000


def test_the_runs_of_one_request_are_told_apart_by_size() -> None:
    statistics = Statistics()
    runs = (RunTiming(0.0, 0.375, 4), RunTiming(0.0, 0.375, 4), RunTiming(0.0, 0.25, 2))
    statistics.answered(answer(WHERE, 10, runs))
    found = statistics.of(WHERE)
    assert (found.images, found.runs, found.compute.count) == (10, 3, 1)
    assert (found.by_size[4].count, found.by_size[4].inside) == (2, 750_000_000)
    assert (found.by_size[2].count, found.by_size[2].inside) == (1, 250_000_000)
    assert found.by_size[4].before == 2 * found.by_size[2].before == 250_000_000


def test_a_run_that_several_requests_share_counts_once() -> None:
    statistics = Statistics()
    for first in (True, False, False):
        statistics.answered(answer(WHERE, 1, (RunTiming(0.5, 1.0, 3, first),)))
    found = statistics.of(WHERE)
    assert (found.images, found.runs, found.compute.count) == (3, 1, 3)
    assert found.by_size == {3: Compute(1, before=1_125_000_000, inside=1_000_000_000, after=187_500_000)}


@given(st.lists(st.lists(st.integers(1, 9), min_size=1), max_size=9))
def test_no_picture_and_no_run_is_lost(requests: list[list[int]]) -> None:
    statistics = Statistics()
    for sizes in requests:
        statistics.answered(answer(WHERE, sum(sizes), [RunTiming(0.0, 1.0, size) for size in sizes]))
    found = statistics.of(WHERE)
    assert found.images == sum(map(sum, requests))
    assert found.runs == sum(map(len, requests))
    assert found.images == sum(size * compute.count for size, compute in found.by_size.items())


def test_ends_are_counted_as_successes_or_failures() -> None:
    statistics = Statistics()
    for succeeded in (True, True, False):
        statistics.ended(End(CALL, Model(WHERE), "Classify", "OK" if succeeded else "INTERNAL", 0.5, inference=True))
    found = statistics.of(WHERE)
    assert (found.success, found.fail) == (Duration(2, 1_000_000_000), Duration(1, 500_000_000))


def test_versions_do_not_share_numbers_and_can_be_forgotten() -> None:
    statistics = Statistics()
    statistics.answered(answer(WHERE, 1, ALONE))
    statistics.answered(answer(("flowers", "2"), 1, ALONE))
    statistics.forget(WHERE)
    statistics.forget(("trees", "1"))
    assert statistics.of(WHERE) == Counts()
    assert statistics.of(("flowers", "2")).images == 1
