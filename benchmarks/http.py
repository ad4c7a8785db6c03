"""HTTP beside gRPC: `python -m benchmarks.http [--photo FILE] [--callers 8] [--rounds 5]`.

One server answers the same photo over both in turns. Rates are compared within a round; CPU is the server's own, which
other processes change less. Prints one JSON line.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import load
from benchmarks.load import Call, Post
from benchmarks.subject import Ports, expect_option, options_option, photo_option, serving
from benchmarks.vitals import read_vitals

_PORT = 18003


@dataclass(frozen=True)
class Turn:
    per_s: float
    cpu_ms: float  # of a call


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@photo_option
@expect_option
@click.option("--callers", default=8, show_default=True, help="Closed-loop callers.")
@click.option("--seconds", default=3, show_default=True, help="Length of each turn.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each; medians are printed.")
@options_option
def main(
    models: Path, photo: Path, expect: str | None, callers: int, seconds: int, rounds: int, options: tuple[str, ...]
) -> None:
    """Calls a second and CPU time a call over HTTP, beside gRPC."""
    load.require_h2load()
    with serving(models.resolve(), photo, _PORT, options) as server:
        server.require(photo, expect)
        turns = taken(server, photo, callers, seconds, rounds)
    shares = [turn["http"].per_s / turn["grpc"].per_s for turn in turns]
    cpu = {name: round(statistics.median(turn[name].cpu_ms for turn in turns), 3) for name in turns[0]}
    result = {
        "photo": photo.name,
        "callers": callers,
        "http_of_grpc": round(statistics.median(shares), 3),
        "shares": [round(share, 3) for share in shares],
        "per_s": {name: round(statistics.median(turn[name].per_s for turn in turns), 1) for name in cpu},
        "cpu_ms": cpu,
    }
    print(json.dumps(result))


def taken(server: Ports, photo: Path, callers: int, seconds: int, rounds: int) -> list[dict[str, Turn]]:
    """Turns of 'grpc' and 'http', by rounds."""
    both: dict[str, Call | Post] = {"grpc": load.classify(photo), "http": load.posted(photo)}
    return [{name: take_turn(server, call, callers, seconds) for name, call in both.items()} for _ in range(rounds)]


def take_turn(server: Ports, call: Call | Post, callers: int, seconds: int) -> Turn:
    """h2load warms up for a second, whose calls count for the time of the CPU, too."""
    pid = server.process.pid
    before, answered = read_vitals(pid).cpu_s, load.answered(server, call)
    found = load.repeated(server, call, callers, seconds)
    return Turn(found.per_s, 1000 * (read_vitals(pid).cpu_s - before) / (load.answered(server, call) - answered))


if __name__ == "__main__":
    main()
