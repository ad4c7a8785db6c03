"""SIGTERM ends a training as Ctrl-C does: files are closed, helpers are told, and the run can go on later."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """Raise `SystemExit` with the shell's code for the signal where it arrives. For the main thread."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
    signal.signal(number, signal.SIG_IGN)  # a second one would come in the middle of ending
    raise SystemExit(128 + number)
