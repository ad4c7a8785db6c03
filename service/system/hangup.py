"""SIGHUP as a command. Its default action would end the process, also while it starts or stops."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def ignore() -> None:
    """Ignore SIGHUP until `heeded`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def heeded(act: Callable[[], None]) -> Iterator[None]:
    """Inside, the running loop calls `act` for each SIGHUP; afterwards it is ignored.

    The loop's own handlers would not do: a loop that closes restores the default action of their signals.
    """
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(act))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        ignore()


@contextmanager
def held_back() -> Iterator[None]:
    """Block SIGHUP, so that a process that is started inside holds it back until it can heed it.

    Tasks may overlap here: each starts its process before another task can run.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
