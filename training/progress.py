"""Progress of a long run: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Receives the pipeline's progress and messages; the pipeline itself prints nothing."""

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Pass the items through and show how many of `total` are done."""
        ...

    def say(self, text: str) -> None:
        """One line that stays."""
        ...


class Silent:
    """Reports nothing, for callers that use the pipeline as a library."""

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:  # noqa: ARG002 - the protocol's arguments
        return iter(items)

    def say(self, text: str) -> None:
        """Nothing."""


class Terminal:
    """Rich bars and lines on stderr; without a terminal the lines alone, so that logs stay readable."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._watched = sys.stderr.isatty()

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        from rich.progress import track

        return iter(track(items, what, total, console=self._console, transient=True, disable=not self._watched))

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that the block takes to `seconds[stage]`."""
    start = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - start
