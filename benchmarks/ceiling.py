"""The most that a server could do: the same work in one process per core, with no server around it.

`python -m benchmarks.ceiling [--photo FILE] [--seconds 5]` prints one JSON line.
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

_WARM_UP = 20  # pictures


def measure(models: Path, model: str, photo: Path, seconds: float) -> float:
    """Pictures a second, decode to probabilities, all cores together. See `warm_classifier`."""
    cores = usable_cores()
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(cores)
    with spawn.Pool(cores, initializer=_share, initargs=(ready,)) as pool:
        rates = pool.starmap(_worker, [(models, model, photo, seconds)] * cores, chunksize=1)
    return sum(rates)


def _share(ready: Barrier) -> None:
    globals()["_ready"] = ready


def warm_classifier(models: Path, model: str, photo: Path) -> Callable[[], int]:
    """One picture from its bytes to its class, on the caller's thread, again and again."""
    bundle = Repository(models).open(model)
    engine = open_on_cpu(bundle)
    data = photo.read_bytes()

    def classify() -> int:
        pixels = bundle.manifest.preprocessing.resize_and_crop(decode(data))
        return int(engine.run((pixels[np.newaxis],)).probabilities[0].argmax())

    for _ in range(_WARM_UP):
        classify()
    return classify


def _worker(models: Path, model: str, photo: Path, seconds: float) -> float:
    classify = warm_classifier(models, model, photo)
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
def main(models: Path, model: str, photo: Path, seconds: float) -> None:
    """Pictures a second without a server."""
    rate = measure(models, model, photo, seconds)
    print(json.dumps({"ceiling_per_s": round(rate, 1), "cores": usable_cores(), "photo": photo.name}))


if __name__ == "__main__":
    main()
