"""One retrain in a process of its own, whose memory is freed and whose failure is contained when it ends."""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from types import FrameType

from anther.errors import AntherError
from training.config import Machine, Recipe
from training.progress import Terminal
from training.publishing import champion
from training.publishing.release import Release
from training.publishing.retrain import retrain
from training.runs.records import TrainingRequest


@dataclass(frozen=True)
class Attempt:
    """Everything that `retrain` takes, for as many times as it is started."""

    request: TrainingRequest
    recipe: Recipe
    machine: Machine
    release: Release

    def start(self) -> SpawnProcess:
        """The running process. It exits with 0 where a version was published, and reports the reason otherwise."""
        process = multiprocessing.get_context("spawn").Process(target=work, args=(self,))
        process.start()
        return process


def work(attempt: Attempt) -> None:
    """The body of the process. Raises `SystemExit` where nothing is published."""
    reporter = Terminal()
    try:
        with ends_on_sigterm():
            _, published = retrain(attempt.request, attempt.recipe, attempt.machine, attempt.release, reporter)
        reporter.say(champion.in_words(published))
    except AntherError as exc:
        reporter.say(f"anther: {exc}")
        sys.exit(1)
    except KeyboardInterrupt:  # Ctrl-C reaches every process of the terminal
        sys.exit(130)


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `SystemExit` with the shell's code for the signal, so that it ends a training as Ctrl-C does.

    For the main thread.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    raise SystemExit(128 + number)
