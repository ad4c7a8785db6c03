"""SIGHUP ends nothing: neither before a process heeds it, nor while it does, nor afterwards."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import uvloop

from service.system import hangup

PATIENCE_S = 60
BLOCKED = "import signal; print(signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, []))"


@pytest.fixture(autouse=True)
def deadly() -> Iterator[None]:
    """As processes are started, and as the other tests find it afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_each_one_is_heeded_on_the_loop_and_later_ones_are_ignored(loop) -> None:
    calls: list[asyncio.AbstractEventLoop] = []

    async def scenario() -> None:
        heard = asyncio.Event()

        def act() -> None:
            calls.append(asyncio.get_running_loop())
            heard.set()

        with hangup.heeded(act):
            for _ in range(2):
                asyncio.get_running_loop().call_later(0.05, hang_up)
                await heard.wait()
                heard.clear()
        hang_up()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(scenario(), PATIENCE_S))
        assert calls == 2 * [runner.get_loop()]
    hang_up()


def test_before_they_are_heeded_they_are_ignored() -> None:
    hangup.ignore()
    hang_up()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_what_a_process_kept_back_since_its_start_it_heeds_when_it_can() -> None:
    def blocked() -> str:
        return subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True).stdout

    with hangup.held_back():
        assert blocked() == "True\n"
    assert blocked() == "False\n"


def test_one_that_came_before_is_heeded() -> None:
    async def scenario() -> None:
        heard = asyncio.Event()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        with hangup.heeded(heard.set):
            await heard.wait()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
