"""Does loading keep up with training? `python -m benchmarks.training --data FOLDER [--device cuda]`.

Photos a second of the loader alone (from files, and from the store of decoded photos), of training steps on a batch
that is already there, and of both together. On a CPU they share the cores, so that both together are slower than
either. Prints one JSON line.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from training import device
from training.config import Machine, Recipe
from training.dataset import data, decoded
from training.dataset.data import Photo
from training.learning import loader, optim
from training.learning.objective import Objective
from training.learning.sampling import BatchSampler
from training.networks import norms, weights
from training.progress import Terminal

Batch = tuple[Tensor, Tensor]
_WARM_UP = 12  # batches: more than the workers make ahead, so that none of theirs is counted as free


@dataclass(frozen=True)
class Bench:
    """The photos and what is done with them."""

    root: Path
    photos: tuple[Photo, ...]
    targets: list[int]
    recipe: Recipe
    machine: Machine
    device: torch.device
    batches: int  # that are timed

    def loaded(self, stored: decoded.Stored | None) -> Iterable[Batch]:
        """Batches without end, in effect, as training gets them."""
        views = loader.Views(self.root, self.photos, self.targets, self.recipe, stored)
        order = BatchSampler(len(self.photos), self.recipe)
        return loader.loader(views, order, device.workers(self.machine), self.device)

    def stepper(self) -> Callable[[Batch], None]:
        """One step of fine-tuning: forward, backward and the optimizer."""
        model = weights.build(self.recipe, max(self.targets) + 1, "none").to(self.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub
        objective = Objective(self.recipe, torch.tensor(self.targets), max(self.targets) + 1, self.device)
        optimizer = optim.optimizer(model, self.recipe)
        scaler = GradScaler(self.device.type, enabled=objective.arithmetic == torch.float16)
        norms.train_mode(model, norms.frozen(self.recipe, len(self.photos), pretrained=True))
        network = device.compiled(model, self.recipe, self.device, Terminal())

        def step(batch: Batch) -> None:
            loss = objective(network, *batch, 0)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optim.move(model, optimizer, scaler, self.recipe)
            loss.item()  # waits for the device, as training does

        return step

    def photos_a_second(self, batches: Iterable[Batch], work: Callable[[Batch], None]) -> float:
        seen, started = 0, 0.0
        for number, batch in enumerate(islice(batches, _WARM_UP + self.batches)):
            if number == _WARM_UP:
                started = time.perf_counter()
            work(batch)
            seen += len(batch[1]) if number >= _WARM_UP else 0
        return seen / (time.perf_counter() - started)


def measure(bench: Bench, stored: decoded.Stored) -> dict[str, float]:
    """Photos a second."""

    def nothing(_: Batch) -> None:
        """Loading alone."""

    step = bench.stepper()
    first = next(iter(bench.loaded(stored)))
    return {
        "load_files": bench.photos_a_second(bench.loaded(None), nothing),
        "load_stored": bench.photos_a_second(bench.loaded(stored), nothing),
        "train": bench.photos_a_second([first] * (_WARM_UP + bench.batches), step),
        "both_files": bench.photos_a_second(bench.loaded(None), step),
        "both_stored": bench.photos_a_second(bench.loaded(stored), step),
    }


@click.command()
@click.option("--data", "source", required=True, type=click.Path(exists=True, path_type=Path), help="Labelled photos.")
@click.option("--backbone", default="mobilenet_v2", show_default=True)
@click.option("--device", "where", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(0), help="Loading processes.  [default: one per core]")
@click.option("--batches", default=40, show_default=True, help="Batches of 32 that each way is timed over.")
@click.option("--stored-size", default=448, show_default=True, help="Short side of stored photos, in pixels.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Compile the network with torch.compile.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where to keep stored photos.  [default: nowhere]")
def main(
    source: Path,
    backbone: str,
    where: str,
    workers: int | None,
    batches: int,
    stored_size: int,
    compiled: bool,
    cache: Path | None,
) -> None:
    """Photos a second of loading against training."""
    scanned = data.scan(source, Terminal())
    photos, _ = data.check(scanned)
    machine = Machine(where, workers)  # type: ignore[arg-type]  # one of the choices
    # Enough epochs that the loader never runs dry: a short last epoch would be timed as a stop.
    epochs = 2 + (_WARM_UP + batches) * 32 // len(photos)
    recipe = Recipe(backbone=backbone, stored_size=stored_size, epochs=epochs, compile=compiled)  # type: ignore[arg-type]  # as above
    targets = [scanned.labels.index(photo.label) for photo in photos]
    bench = Bench(scanned.root, photos, targets, recipe, machine, device.choose(machine), batches)
    with _folder(cache) as folder:
        started = time.perf_counter()
        stored = decoded.store(bench.root, photos, stored_size, Path(folder), Terminal())
        storing = time.perf_counter() - started
        rates = measure(bench, stored)
        size = sum(path.stat().st_size for path in stored.folder.iterdir())
    print(json.dumps({**_setting(bench, backbone), **_result(rates, storing, size)}))


def _folder(cache: Path | None) -> AbstractContextManager[str | Path]:
    return tempfile.TemporaryDirectory() if cache is None else nullcontext(cache)


def _setting(bench: Bench, backbone: str) -> dict[str, object]:
    facts = {"photos": len(bench.photos), "backbone": backbone, "device": bench.device.type}
    sizes = {name: bench.recipe.record()[name] for name in ("train_size", "stored_size", "compile")}
    counts = {"workers": device.workers(bench.machine), "cores": len(os.sched_getaffinity(0))}
    return {**facts, **sizes, **counts, "load_average": round(os.getloadavg()[0], 1), "machine": platform.machine()}


def _result(rates: dict[str, float], storing: float, size: int) -> dict[str, object]:
    """`ahead` is how many times as fast as training the loader alone is; over 1, the device never waits for it."""
    return {
        "photos_a_second": {name: round(rate, 1) for name, rate in rates.items()},
        "files_ahead": round(rates["load_files"] / rates["train"], 2),
        "stored_ahead": round(rates["load_stored"] / rates["train"], 2),
        "storing_s": round(storing, 1),
        "stored_gb": round(size / 1e9, 3),
    }


if __name__ == "__main__":
    main()
