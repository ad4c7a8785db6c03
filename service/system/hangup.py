"""SIGHUP as a command. Left alone it ends a process, and that also while the process starts or ends."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def ignore() -> None:
    """Until `heeded`. Not inherited by processes that are started inside it: see `held_back`."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def heeded(act: Callable[[], None]) -> Iterator[None]:
    """Inside, the running loop calls `act` for each SIGHUP; afterwards it is ignored.

    Not by the loop's own handlers: where it closes, it gives their signals back their deadly meaning.
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
    """A process that is started inside keeps a SIGHUP until it is there to heed it; this one does so meanwhile.

    One task may leave while another is inside: each starts its process before anything else can run.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
