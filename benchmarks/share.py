"""What share of the ceiling the server reaches: `python -m benchmarks.share [--rounds 12] [--seconds 8]`.

A shared machine's speed changes by a third within minutes, and a process is some per cent faster or slower for all its
life, by where its memory happens to lie. So ceiling and server take turns of 0.4 s, each stopped while the other runs,
and every round starts new processes. Prints one JSON line: means over the rounds and their standard errors.
"""

import bisect
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import click

from benchmarks import load
from benchmarks.ceiling import warm_classifier
from benchmarks.subject import Server, expect_option, options_option, photo_option, serving
from service.system.cores import usable_cores

_PORT = 18002
_TURN_S = 0.4
_WARM_UP_S = 1.0
_START_LIMIT_S = 60.0  # for a process of the ceiling; one that died would be waited for


class Ceiling:
    """A process per core that classifies the photo over and over; stopped but for its turns."""

    def __init__(self, processes: list[Any], counts: Any) -> None:
        self.processes = [process.pid for process in processes]
        self._counts = counts

    def turn(self) -> float:
        """Pictures/s."""
        before: int = sum(self._counts)
        begin, end = _turn(self.processes)
        after: int = sum(self._counts)
        return (after - before) / (end - begin)


@contextmanager
def _ceiling(models: Path, model: str, photo: Path) -> Iterator[Ceiling]:
    spawn, cores = multiprocessing.get_context("spawn"), usable_cores()
    counts, ready = spawn.RawArray("q", cores), spawn.Barrier(cores + 1)
    arguments = (models, model, photo, counts, ready)
    processes = [spawn.Process(target=_classify, args=(*arguments, core), daemon=True) for core in range(cores)]
    for process in processes:
        process.start()
    try:
        ready.wait(_START_LIMIT_S)
        ceiling = Ceiling(processes, counts)
        _signal(ceiling.processes, signal.SIGSTOP)
        yield ceiling
    finally:
        for process in processes:
            process.kill()
            process.join()


def _classify(models: Path, model: str, photo: Path, counts: Any, ready: Barrier, core: int) -> None:
    classify = warm_classifier(models, model, photo)
    ready.wait()
    while True:
        classify()
        counts[core] += 1


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@expect_option
@click.option("--callers", default="8,32", show_default=True, help="Closed-loop callers, one number at a time.")
@click.option("--seconds", default=8.0, show_default=True, help="Of server and of ceiling, for each number of callers.")
@click.option("--rounds", default=12, show_default=True, type=click.IntRange(2), help="Each with new processes.")
@options_option
def main(
    models: Path,
    model: str,
    photo: Path,
    expect: str | None,
    callers: str,
    seconds: float,
    rounds: int,
    options: tuple[str, ...],
) -> None:
    """The server's throughput as a share of the ceiling's, turn by turn."""
    load.require_h2load()
    counts = [int(count) for count in callers.split(",")]
    found = [_round(models, model, photo, expect, counts, seconds, options) for _ in range(rounds)]
    shares = {str(count): _mean([each[index] for each in found]) for index, count in enumerate(counts)}
    print(json.dumps({"photo": photo.name, "cores": usable_cores(), "rounds": rounds, "of_ceiling": shares}))


def _round(
    models: Path,
    model: str,
    photo: Path,
    expect: str | None,
    counts: list[int],
    seconds: float,
    options: tuple[str, ...],
) -> list[float]:
    """For each number of callers, the server's share of the ceiling."""
    with serving(models.resolve(), photo, _PORT, options) as server, _ceiling(models, model, photo) as ceiling:
        server.require(photo, expect)
        return [_share(server, ceiling, photo, count, seconds) for count in counts]


def _share(server: Server, ceiling: Ceiling, photo: Path, count: int, seconds: float) -> float:
    with load.unending(server, photo, count) as (callers, ends):
        time.sleep(_WARM_UP_S)
        loaded = (server.process.pid, callers)
        _signal(loaded, signal.SIGSTOP)
        try:
            turns = [(_turn(loaded), ceiling.turn()) for _ in range(round(seconds / _TURN_S))]
        finally:
            _signal(loaded, signal.SIGCONT)
    served = [(bisect.bisect(ends, end) - bisect.bisect(ends, begin)) / (end - begin) for (begin, end), _ in turns]
    return statistics.mean(served) / statistics.mean(rate for _, rate in turns)


def _turn(processes: Sequence[int]) -> tuple[float, float]:
    """When they were let run and when they were stopped, in Unix time."""
    _signal(processes, signal.SIGCONT)
    begin = time.time()
    try:
        time.sleep(_TURN_S)
    finally:
        _signal(processes, signal.SIGSTOP)
    return begin, time.time()


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def _mean(values: list[float]) -> dict[str, float]:
    error = statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(statistics.mean(values), 3), "standard_error": round(error, 3)}


if __name__ == "__main__":
    main()
