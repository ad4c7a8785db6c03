"""When a batch goes, and what is in it; the time is the tests' own."""

import math
import weakref
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scheduling.ready import Batch, Part, Ready

WAIT_S, RUN_S = 0.5, 0.1


class Engine:
    def __init__(self, largest: int = 8) -> None:
        self.batch_sizes = (1, largest)


class Item:
    """Stands for a caller who waits, until `left` is set."""

    def __init__(self, number: int) -> None:
        self.number, self.enqueued, self.left = number, float(number), False


def part(
    engine: Any, number: int = 0, rows: int = 1, since: float = 0.0, deadline: float = math.inf, evidence: bool = False
) -> Any:
    return Part(Item(number), engine, evidence, np.zeros((rows, 1, 1, 3), np.uint8), deadline, 0.0, since)


def ready_with(*parts: Any) -> Ready:
    ready = Ready(WAIT_S, RUN_S)
    for each in parts:
        ready.put(each)
    return ready


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [each.item.number for each in batch.parts]


# When


def test_without_parts_there_is_nothing_to_go_and_nothing_due() -> None:
    ready = ready_with()
    assert ready.due() == math.inf
    assert ready.take(0.0, quiet=True) is None


def test_a_single_part_goes_at_once_when_there_is_nothing_to_wait_for() -> None:
    ready = ready_with(part(Engine(), 7))
    assert numbers(ready.take(0.0, quiet=True)) == [7]
    assert (ready.rows, ready.due()) == (0, math.inf)


def test_otherwise_the_first_part_waits_for_company_but_not_longer_than_it_may() -> None:
    engine = Engine()
    ready = ready_with(part(engine, 1, since=10.0), part(engine, 2, since=10.4))
    assert ready.due() == 10.0 + WAIT_S
    assert ready.take(10.49, quiet=False) is None
    assert numbers(ready.take(10.5, quiet=False)) == [1, 2]


def test_a_full_batch_goes_at_once_and_the_rest_begins_to_wait_by_its_own_time() -> None:
    engine = Engine(largest=4)
    ready = ready_with(*(part(engine, number, since=float(number)) for number in range(6)))
    assert ready.due() == -math.inf
    assert numbers(ready.take(-100.0, quiet=False)) == [0, 1, 2, 3]
    assert (ready.rows, ready.due()) == (2, 4.0 + WAIT_S)


def test_who_has_no_time_for_company_does_not_wait() -> None:
    engine = Engine()
    in_time, too_late = WAIT_S + RUN_S, WAIT_S + RUN_S - 0.01
    ready = ready_with(part(engine, 1), part(engine, 2, deadline=in_time))
    assert ready.due() == WAIT_S
    ready.put(part(engine, 3, deadline=too_late))
    assert ready.due() == -math.inf
    assert numbers(ready.take(0.0, quiet=False)) == [1, 2, 3]


def test_a_hurry_ends_with_the_part_that_was_in_a_hurry() -> None:
    engine = Engine(largest=2)
    ready = ready_with(part(engine, 1, deadline=0.1), part(engine, 2), part(engine, 3))
    assert numbers(ready.take(0.0, quiet=False)) == [1, 2]
    assert ready.due() == WAIT_S


# What


def test_a_part_is_never_torn_apart() -> None:
    engine = Engine(largest=8)
    ready = ready_with(part(engine, 1, rows=5), part(engine, 2, rows=5), part(engine, 3, rows=3))
    assert numbers(ready.take(0.0, quiet=False)) == [1]
    assert ready.rows == 8
    batch = ready.take(0.0, quiet=False)
    assert numbers(batch) == [2, 3]
    assert batch.rows == 8


def test_a_part_over_the_largest_batch_goes_alone_for_the_engine_to_refuse() -> None:
    engine = Engine(largest=2)
    ready = ready_with(part(engine, 1, rows=3), part(engine, 2))
    assert numbers(ready.take(0.0, quiet=False)) == [1]


def test_who_left_and_whose_deadline_passed_are_set_aside() -> None:
    engine = Engine()
    parts = [part(engine, number) for number in range(4)]
    parts[1].item.left = True
    parts[2].deadline = 3.0
    ready = ready_with(*parts)
    batch = ready.take(3.0, quiet=True)
    assert numbers(batch) == [0, 3]
    assert batch.dropped == [parts[1], parts[2]]
    assert ready.rows == 0


def test_where_nobody_waits_any_more_there_is_nothing_to_run() -> None:
    gone = part(Engine())
    gone.item.left = True
    batch = ready_with(gone).take(0.0, quiet=True)
    assert (batch.parts, batch.dropped) == ([], [gone])


def test_engines_and_evidence_are_kept_apart() -> None:
    one, other = Engine(), Engine()
    ready = ready_with(part(one, 1), part(other, 2), part(one, 3, evidence=True), part(one, 4))
    batches = [ready.take(0.0, quiet=True) for _ in range(3)]
    assert [numbers(batch) for batch in batches] == [[1, 4], [2], [3]]
    assert [(batch.engine, batch.evidence) for batch in batches] == [(one, False), (other, False), (one, True)]


def test_rows_are_counted_not_parts() -> None:
    engine = Engine()
    assert ready_with(part(engine, rows=3), part(engine, rows=2)).rows == 5


# Who first


def test_of_several_that_could_go_the_one_that_came_first_goes() -> None:
    """However many wait for the other."""
    busy, quiet = Engine(largest=2), Engine(largest=2)
    ready = ready_with(part(busy, 2), part(busy, 3), part(busy, 4), part(busy, 5), part(quiet, 1))
    assert numbers(ready.take(WAIT_S, quiet=False)) == [1]
    assert numbers(ready.take(WAIT_S, quiet=False)) == [2, 3]


def test_one_that_still_waits_for_company_holds_no_full_batch_up() -> None:
    waiting, full = Engine(), Engine(largest=1)
    ready = ready_with(part(waiting, 1), part(full, 2))
    assert numbers(ready.take(0.0, quiet=False)) == [2]
    assert ready.take(0.0, quiet=False) is None


def test_an_engine_is_forgotten_with_the_last_of_its_parts() -> None:
    engine = Engine()
    ready = ready_with(part(engine))
    left = weakref.ref(engine)
    del engine
    assert ready.take(0.0, quiet=True) is not None
    assert left() is None


# Any schedule


@settings(max_examples=100, deadline=None)
@given(
    largest=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 1), st.integers(1, 6), st.sampled_from(["", "left", "late"])),
            st.tuples(st.just("take"), st.booleans()),
        ),
        max_size=60,
    ),
)
def test_every_part_comes_out_once_in_order_and_in_no_batch_over_the_largest(largest, steps) -> None:
    engines = [Engine(size) for size in largest]
    ready, put, taken = Ready(WAIT_S, RUN_S), [], []
    for now, step in enumerate([*steps, *[("take", True)] * len(steps)]):
        if step[0] == "put":
            _, which, rows, fate = step
            put.append(part(engines[which], now, rows, float(now), now if fate == "late" else math.inf))
            put[-1].item.left = fate == "left"
            ready.put(put[-1])
        else:
            batch = ready.take(now, step[1])
            taken += [] if batch is None else [batch]
    assert ready.rows == 0
    assert ready.due() == math.inf
    for engine in engines:
        live = [each for each in put if each.engine is engine and not each.item.left and each.deadline == math.inf]
        batches = [batch for batch in taken if batch.engine is engine]
        assert [each for batch in batches for each in batch.parts] == live
        assert all(batch.rows <= engine.batch_sizes[-1] or len(batch.parts) == 1 for batch in batches)
    assert sum(len(batch.parts) + len(batch.dropped) for batch in taken) == len(put)
