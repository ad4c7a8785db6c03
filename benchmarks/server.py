"""The server under load beside the ceiling, in one run: `python -m benchmarks.server [--photo FILE] [--rounds 3]`.

Ceiling and server take turns, and a share compares a load with the ceilings measured just before and after it. A
real client checks first that the answer is right. Prints one JSON line.
"""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import load
from benchmarks.ceiling import measure
from benchmarks.load import Load
from benchmarks.subject import expect_option, options_option, photo_option, serving
from service.system.cores import usable_cores

_PORT = 18001
_BUSY = 0.7  # of capacity: where a service is run that has headroom


@dataclass(frozen=True)
class Round:
    """`ceilings` pictures/s: one before the first load and one after each.

    `paced` and `arrivals` are loads at 70 % of capacity, at a constant rate and at random moments.
    """

    ceilings: list[float]
    loads: list[Load]
    paced: Load
    arrivals: Load
    first_answer_s: float
    memory_mb: float

    def share(self, index: int) -> float:
        """A load's rate as a share of the ceiling around it."""
        return self.loads[index].per_s / statistics.mean(self.ceilings[index : index + 2])


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@expect_option
@click.option("--callers", default="1,8,32", show_default=True, help="Closed-loop callers, one at a time.")
@click.option("--seconds", default=5, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=3, show_default=True, help="Ceiling and server in turn; medians are printed.")
@options_option
def main(
    models: Path,
    model: str,
    photo: Path,
    expect: str | None,
    callers: str,
    seconds: int,
    rounds: int,
    options: tuple[str, ...],
) -> None:
    """Throughput, latency, start-up time and memory of the server, as shares of the ceiling where that makes sense."""
    load.require_h2load()
    counts = [int(count) for count in callers.split(",")]
    results = [_round(models, model, photo, expect, counts, seconds, options) for _ in range(rounds)]
    print(json.dumps(_summary(results, counts, photo)))


def _round(
    models: Path, model: str, photo: Path, expect: str | None, counts: list[int], seconds: int, options: tuple[str, ...]
) -> Round:
    ceilings, loads = [measure(models, model, photo, seconds)], []
    with serving(models.resolve(), photo, _PORT, options) as server:
        server.require(photo, expect)
        for count in counts:
            loads.append(load.callers(server, photo, count, seconds))
            ceilings.append(measure(models, model, photo, seconds))
        busy = _BUSY * max(found.per_s for found in loads)
        paced, arrivals = (send(server, photo, busy, 2 * seconds) for send in (load.paced, load.arrivals))
        return Round(ceilings, loads, paced, arrivals, server.first_answer_s, server.memory_mb())


def _summary(rounds: list[Round], counts: list[int], photo: Path) -> dict[str, object]:
    unloaded = [found.loads[0].quantile(0.5) for found in rounds]
    return {
        "photo": photo.name,
        "cores": usable_cores(),
        "ceiling_per_s": _median((rate for found in rounds for rate in found.ceilings), 1),
        "callers": {
            str(count): {
                **_speed([found.loads[index] for found in rounds]),
                "of_ceiling": _median((found.share(index) for found in rounds), 3),
            }
            for index, count in enumerate(counts)
        },
        "paced_at_70_percent": _steady([found.paced for found in rounds], unloaded),
        "random_at_70_percent": _steady([found.arrivals for found in rounds], unloaded),
        "load_generator_cpu": _median((found.cpu for each in rounds for found in each.loads), 3),
        "first_answer_s": _median((found.first_answer_s for found in rounds), 2),
        "memory_mb": _median((found.memory_mb for found in rounds), 1),
    }


def _steady(loads: list[Load], unloaded: list[float]) -> dict[str, float]:
    """Beside the unloaded median p99 means something: two perfect lanes would have 4.0 times it at random arrivals.

    That is an M/D/2 queue: P(wait > t) = 0.58 exp(-1.36 t / s) at 70 % of capacity, with s the time of service.
    """
    shares = (found.quantile(0.99) / median for found, median in zip(loads, unloaded, strict=True))
    return {**_speed(loads), "p99_of_unloaded_median": _median(shares, 2)}


def _speed(loads: list[Load]) -> dict[str, float]:
    return {
        "per_s": _median((found.per_s for found in loads), 1),
        "p50_ms": _median((found.quantile(0.5) for found in loads), 1),
        "p99_ms": _median((found.quantile(0.99) for found in loads), 1),
    }


def _median(values: Iterable[float], digits: int) -> float:
    return round(statistics.median(values), digits)


if __name__ == "__main__":
    main()
