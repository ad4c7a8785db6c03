"""A process steps back behind the others, and only that one."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from service.system import priority


@pytest.fixture
def child() -> Iterator[int]:
    """The id of a process that does nothing."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def test_an_idle_process_is_scheduled_as_one(child: int) -> None:
    assert priority.idle(child) is True
    assert os.sched_getscheduler(child) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) != os.SCHED_IDLE


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: int, policy: int, parameter: os.sched_param) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)


def test_where_that_is_forbidden_it_becomes_as_nice_as_can_be(forbidden, child: int, caplog) -> None:
    assert priority.idle(child) is False
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert "cannot be scheduled as idle (Operation not permitted)" in caplog.text


def test_a_process_that_has_ended_needs_no_priority(forbidden) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert priority.idle(process.pid) is False
