"""A fine-tuning that may end itself with SIGKILL, in a process that forks from a server which imported torch once."""

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from training import pipeline
from training.config import Machine, Recipe
from training.progress import Silent
from training.runs.records import TrainingRequest
from training.runs.run import Run

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    request: TrainingRequest
    recipe: Recipe
    machine: Machine
    errors: Path  # a new file for what the process writes to its standard error
    resume: Path | None = None  # the folder of the run to go on with, instead of a new one
    kill_before: int = 0  # the training step of this process that it does not live to see


class Killing(Silent):
    def __init__(self, step: int) -> None:
        self._step = step

    def track(self, items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
        for step, item in enumerate(items, start=1):
            if what.startswith("Fine-tuning") and step == self._step:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item


def run(job: Job) -> int:
    """The exit code of a process that does the job."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["anther.program", __name__])
    process = context.Process(target=_work, args=(job,))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _work(job: Job) -> None:
    with job.errors.open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    reporter = Killing(job.kill_before)
    if job.resume:
        pipeline.resume(Run(job.resume), job.machine, reporter)
    else:
        pipeline.train(job.request, job.recipe, job.machine, reporter)
