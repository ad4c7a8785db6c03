"""The most that a server could do: the same work in one process per core, with no server around it.

`python -m benchmarks.ceiling [--photo FILE] [--seconds 5] [--as-served]` prints one JSON line.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import click
import numpy as np

from benchmarks.subject import photo_option
from bundle.preprocessing import decode
from bundle.repository import Repository
from service.engines.engine import open_on_cpu
from service.system.cores import usable_cores
from service.system.huge_pages import gather
from service.system.memory import keep_freed_memory

_WARM_UP = 20  # pictures


def measure(models: Path, model: str, photo: Path, seconds: float, as_served: bool = False) -> float:
    """Pictures a second, decode to probabilities, all cores together. See `warm_classifier`."""
    cores = usable_cores()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(cores)
    with spawn.Pool(cores, initializer=_share, initargs=(ready,)) as pool:
        rates = pool.starmap(_worker, [(models, model, photo, seconds, as_served)] * cores, chunksize=1)
    return sum(rates)


def _share(ready: Barrier) -> None:
    globals()["_ready"] = ready


def warm_classifier(models: Path, model: str, photo: Path, as_served: bool) -> Callable[[], int]:
    """One picture from its bytes to its class, on the caller's thread, again and again.

    `as_served` gives this process what a server does for its memory; the functions are the same.
    """
    if as_served:
        keep_freed_memory()
    bundle = Repository(models).open(model)
    engine = open_on_cpu(bundle)
    data = photo.read_bytes()

    def classify() -> int:
        pixels = bundle.manifest.preprocessing.resize_and_crop(decode(data))
        return int(engine.run((pixels[np.newaxis],)).probabilities[0].argmax())

    for _ in range(_WARM_UP):
        classify()
    if as_served:
        gather()
    return classify


def _worker(models: Path, model: str, photo: Path, seconds: float, as_served: bool) -> float:
    classify = warm_classifier(models, model, photo, as_served)
    globals()["_ready"].wait()
    started, pictures = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        classify()
        pictures += 1
    return pictures / elapsed


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--as-served", is_flag=True, help="With a server's memory: freed memory kept, on huge pages.")
def main(models: Path, model: str, photo: Path, seconds: float, as_served: bool) -> None:
    """Pictures a second without a server."""
    rate = measure(models, model, photo, seconds, as_served)
    print(json.dumps({"ceiling_per_s": round(rate, 1), "cores": usable_cores(), "photo": photo.name}))


if __name__ == "__main__":
    main()
