"""Turns of processes that are stopped in between, and what is made of them."""

import multiprocessing
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.share import Ceiling, _mean, _signal, _turn


def count(counts: Any) -> None:
    while True:
        counts[0] += 1
        time.sleep(0.001)


@pytest.fixture
def counting() -> Iterator[tuple[Any, Any]]:
    """A stopped process, and what it counts whenever it runs."""
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.RawArray("q", 1)
    process = spawn.Process(target=count, args=(counts,), daemon=True)
    process.start()
    while counts[0] == 0:
        time.sleep(0.001)
    _signal([process.pid], signal.SIGSTOP)
    yield process, counts
    process.kill()
    process.join()


def test_a_process_works_in_its_turns_and_only_there(counting) -> None:
    process, counts = counting
    time.sleep(0.1)  # a signal takes a moment
    before = counts[0]
    time.sleep(0.1)
    assert counts[0] == before
    begin, end = _turn([process.pid])
    assert end - begin >= 0.4
    time.sleep(0.1)
    after = counts[0]
    assert after > before
    time.sleep(0.1)
    assert counts[0] == after


def test_a_turn_of_the_ceiling_is_its_work_by_its_time(counting) -> None:
    process, counts = counting
    before, began = counts[0], time.time()
    rate = Ceiling([process], counts).turn()
    assert 0 < rate <= (counts[0] - before) / 0.4
    assert time.time() - began >= 0.4


def test_the_mean_has_its_standard_error() -> None:
    assert _mean([0.9, 0.92, 0.94]) == {"mean": 0.92, "standard_error": 0.012}
