"""int8 beside fp32 through the server: `python -m benchmarks.precision [--models M] [--model flowers]`.

Two servers of the same version, one in each precision, are under load in turn; the one that waits uses no processor.
Every pair gives one ratio, and who begins changes from pair to pair. Prints one JSON line.
"""

import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from benchmarks import load
from benchmarks.load import Load
from benchmarks.subject import Server, photo_option, serving
from bundle.repository import Repository
from service.system.cores import usable_cores

_PORTS = {"fp32": 18011, "int8": 18012}


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--callers", default=8, show_default=True, help="Closed-loop callers.")
@click.option("--seconds", default=5, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=5, show_default=True, help="Pairs of measurements; medians are printed.")
def main(models: Path, model: str, photo: Path, callers: int, seconds: int, rounds: int) -> None:
    """Pictures a second of int8 over fp32, decoding and all."""
    load.require_h2load()
    bundle = Repository(models).open(model)
    variant = bundle.manifest.variant("int8")
    if variant is None:
        sys.exit(f"{bundle.path} holds no int8 model; export its run with --int8")
    found: dict[str, list[Load]] = {"fp32": [], "int8": []}
    with (
        _alone(models, model) as folder,
        serving(folder, photo, _PORTS["fp32"], ("--precision=fp32",)) as plain,
        serving(folder, photo, _PORTS["int8"], ("--precision=int8",)) as lower,
    ):
        servers = {"fp32": plain, "int8": lower}
        for index in range(rounds):
            for precision in _order(index):
                found[precision].append(load.callers(servers[precision], photo, callers, seconds))
        memory = {precision: round(server.memory_mb(), 1) for precision, server in servers.items()}
    ratios = [int8.per_s / fp32.per_s for fp32, int8 in zip(found["fp32"], found["int8"], strict=True)]
    print(
        json.dumps(
            {
                "photo": photo.name,
                "cores": usable_cores(),
                "callers": callers,
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                **{precision: _speed(loads) for precision, loads in found.items()},
                "labels": {precision: _label(server) for precision, server in servers.items()},
                "memory_mb": memory,
                "speedup_at_export": variant.speedup,
                "top1": {"fp32": bundle.manifest.metrics.top1, "int8": variant.metrics.top1},
            }
        )
    )


@contextmanager
def _alone(models: Path, model: str) -> Iterator[Path]:
    """A folder of models with this one alone, so that both servers answer with it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / model).symlink_to((models / model).resolve())
        yield Path(folder)


def _order(index: int) -> tuple[str, str]:
    return ("fp32", "int8") if index % 2 == 0 else ("int8", "fp32")


def _label(server: Server) -> str:
    return server.answer.predictions[0].label


def _speed(loads: list[Load]) -> dict[str, float]:
    return {
        "per_s": round(statistics.median(found.per_s for found in loads), 1),
        "p50_ms": round(statistics.median(found.quantile(0.5) for found in loads), 1),
        "p99_ms": round(statistics.median(found.quantile(0.99) for found in loads), 1),
    }


if __name__ == "__main__":
    main()
