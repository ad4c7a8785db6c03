"""A thread steps back behind the others, and only that thread."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from service import priority

T = TypeVar("T")


def on_a_thread(work: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_only_the_calling_thread_becomes_nicer() -> None:
    before = niceness()
    assert on_a_thread(lambda: (priority.lower(3), niceness())) == (before + 3, before + 3)
    assert niceness() == before


def test_nobody_is_nicer_than_nineteen() -> None:
    assert on_a_thread(lambda: (priority.lower(19), priority.lower(10))) == (19, 19)


def test_an_idle_thread_is_scheduled_as_one() -> None:
    before = os.sched_getscheduler(0)
    assert on_a_thread(lambda: (priority.idle(), os.sched_getscheduler(0))) == (True, os.SCHED_IDLE)
    assert os.sched_getscheduler(0) == before


def test_where_that_is_forbidden_it_becomes_as_nice_as_can_be(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def refuse(thread: int, policy: int, parameter: os.sched_param) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert on_a_thread(lambda: (priority.idle(), niceness())) == (False, 19)
    assert "cannot be scheduled as idle (Operation not permitted)" in caplog.text
