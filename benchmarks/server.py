"""The server under load beside the ceiling, in one run: `python -m benchmarks.server [--photo FILE] [--rounds 3]`.

Ceiling and server take turns, and a share compares a load with the ceilings measured just before and after it. A
real client checks first that the answer is right. Prints one JSON line.
"""

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import load
from benchmarks.ceiling import measure
from benchmarks.load import Load
from benchmarks.subject import photo_option, serving
from service.system.cores import usable_cores

_PORT = 18001
_BUSY = 0.7  # of capacity: where a service is run that has headroom


@dataclass(frozen=True)
class Round:
    """`ceilings` pictures/s: one before the first load and one after each; `steady` is the load of random arrivals."""

    ceilings: list[float]
    loads: list[Load]
    steady: Load
    first_answer_s: float
    memory_mb: float

    def share(self, index: int) -> float:
        """A load's rate as a share of the ceiling around it."""
        return self.loads[index].per_s / statistics.mean(self.ceilings[index : index + 2])


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--expect", default=None, help="Label that the picture must get; by default the file's name.")
@click.option("--callers", default="1,8,32", show_default=True, help="Closed-loop callers, one at a time.")
@click.option("--seconds", default=5, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=3, show_default=True, help="Ceiling and server in turn; medians are printed.")
@click.option("--option", "options", multiple=True, help="Passed on to `anther serve`, such as --option=--lanes=3.")
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
    results = [_round(models, model, photo, expect or photo.stem, counts, seconds, options) for _ in range(rounds)]
    print(json.dumps(_summary(results, counts, photo)))


def _round(
    models: Path, model: str, photo: Path, expect: str, counts: list[int], seconds: int, options: tuple[str, ...]
) -> Round:
    ceilings, loads = [measure(models, model, photo, seconds)], []
    with serving(models.resolve(), photo, _PORT, options) as server:
        found = server.answer.predictions[0].label
        if found != expect:
            sys.exit(f"{photo} was answered '{found}', expected '{expect}'")
        for count in counts:
            loads.append(load.callers(server, photo, count, seconds))
            ceilings.append(measure(models, model, photo, seconds))
        steady = load.arrivals(server, photo, _BUSY * max(found.per_s for found in loads), 2 * seconds)
        return Round(ceilings, loads, steady, server.first_answer_s, server.memory_mb())


def _summary(rounds: list[Round], counts: list[int], photo: Path) -> dict[str, object]:
    unloaded = [found.loads[0].quantile(0.5) for found in rounds]
    steady = [found.steady for found in rounds]
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
        "at_70_percent": {
            **_speed(steady),
            "p99_of_unloaded_median": _median(
                (found.quantile(0.99) / median for found, median in zip(steady, unloaded, strict=True)), 2
            ),
        },
        "load_generator_cpu": _median((found.cpu for each in rounds for found in each.loads), 3),
        "first_answer_s": _median((found.first_answer_s for found in rounds), 2),
        "memory_mb": _median((found.memory_mb for found in rounds), 1),
    }


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
