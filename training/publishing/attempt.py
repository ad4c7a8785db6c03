"""One retrain in a process of its own: what it took is given back with it, and its end ends nothing else."""

import multiprocessing
import sys
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess

from anther.errors import AntherError
from training.config import Machine, Recipe
from training.pipeline import Request
from training.progress import Terminal
from training.publishing import champion
from training.publishing.ending import ends_on_sigterm
from training.publishing.release import Release
from training.publishing.retrain import retrain


@dataclass(frozen=True)
class Attempt:
    """Everything that `retrain` takes, for as many times as it is started."""

    request: Request
    recipe: Recipe
    machine: Machine
    release: Release

    def start(self) -> SpawnProcess:
        """The running process. Its exit code is 0 where a version was published; it says itself why not."""
        process = multiprocessing.get_context("spawn").Process(target=work, args=(self,))
        process.start()
        return process


def work(attempt: Attempt) -> None:
    """What the process does. Raises `SystemExit` where nothing is published."""
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
