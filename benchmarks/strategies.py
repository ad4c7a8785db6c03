"""Whether `--strategy auto` picks the best strategy: five situations, every strategy in each, on photos kept aside.

`python -m benchmarks.strategies --data FOLDER --weights FILE` prints one JSON line. With the default recipe on two
cores it takes hours; --epochs, --compile and --only make it shorter.
"""

import dataclasses
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import drawn
from training import pipeline
from training.comparison import running
from training.comparison.records import Candidate
from training.config import Machine, Recipe, Strategy
from training.dataset import data, split
from training.progress import Reporter, Silent, Terminal
from training.runs.records import TrainingRequest
from training.runs.run import Run
from training.transfer import choice

STRATEGIES: tuple[Strategy, ...] = ("head", "truncate", "finetune", "scratch")
_KEPT_ASIDE = 0.2  # of the photos, by content: what measures, whatever else is drawn
_WITHIN = 0.01  # of the winner counts as right


@dataclass(frozen=True)
class Situation:
    """Photos to train on, and others that measure; both are folders of one subfolder per class."""

    name: str
    photos: Path
    test: Path


def situations(folder: Path, source: Path, seed: int, sizes: "Sizes") -> Iterator[Situation]:
    """The five, made below `folder` one after another."""
    test = folder / "photos-test"
    pool = _kept_aside(source, test)
    for each in sizes.photos:
        name = f"photos, {each or 'all'} a class"
        part = folder / f"photos-{each}"
        _link(source, _some(pool, each, seed), part)
        yield Situation(name, part, test)
    drawn_test = folder / "drawn-test"
    drawn.draw(drawn_test, sizes.drawn_test, seed=10_000)
    for each in sizes.drawn:
        part = folder / f"drawn-{each}"
        drawn.draw(part, each, seed)
        yield Situation(f"drawn, {each} a class", part, drawn_test)


@dataclass(frozen=True)
class Sizes:
    """Pictures a class; 0 is all."""

    photos: tuple[int, ...] = (10, 50, 0)
    drawn: tuple[int, ...] = (15, 400)
    drawn_test: int = 100


def measure(
    situation: Situation, recipe: Recipe, weights: str, runs: Path, machine: Machine, reporter: Reporter
) -> dict[str, Any]:
    """Test accuracy of every strategy, and what auto chose among them and why."""
    photos, _ = data.check(data.scan(situation.photos, reporter))
    labels = sorted({photo.label for photo in photos})
    usable = split.usable_seed([[photo.digest for photo in photos if photo.label == label] for label in labels])
    recipe = dataclasses.replace(recipe, split_seed=usable or 0)
    request = TrainingRequest(situation.photos, "situation", weights, runs)
    candidates = [Candidate(recipe.backbone, strategy) for strategy in STRATEGIES]
    _, rows = running.compare(request, recipe, candidates, machine, reporter)
    found = {
        row.candidate.strategy: _accuracy(Run(Path(row.run)), situation.test, machine) for row in rows if row.result
    }

    asking = pipeline.begin(request, dataclasses.replace(recipe, strategy="auto"), reporter)
    choice.choose(asking, pipeline.context_of(asking, machine), runs / ".cache", reporter)
    chosen = asking.chosen()
    assert chosen is not None
    return {"test": found, "auto": chosen.strategy, "reasons": chosen.reasons}


def _accuracy(trained: Run, test: Path, machine: Machine) -> float:
    """The chosen strategy would train to the same weights again, so that auto needs no training of its own."""
    pipeline.resume(trained, machine, Silent())
    return pipeline.evaluate_any(trained.path, test, machine, Silent()).metrics.top1


def judged(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of one situation, and how far what auto chose lies below the winner."""
    means = {name: float(np.mean([one["test"][name] for one in repeats])) for name in repeats[0]["test"]}
    auto = float(np.mean([one["test"][one["auto"]] for one in repeats]))
    winner = max(means, key=lambda name: means[name])
    return {
        "test": {name: round(value, 4) for name, value in means.items()},
        "winner": winner,
        "auto": [one["auto"] for one in repeats],
        "auto_test": round(auto, 4),
        "below_winner": round(means[winner] - auto, 4),
        "right": means[winner] - auto <= _WITHIN,
        "reasons": repeats[0]["reasons"],
    }


def _kept_aside(source: Path, test: Path) -> list[data.Photo]:
    """Link a fifth of the photos, by content, into `test`; returns the others."""
    photos, _ = data.check(data.scan(source, Silent()))
    aside = [photo for photo in photos if int(photo.digest[:8], 16) < _KEPT_ASIDE * 2**32]
    _link(source, aside, test)
    return [photo for photo in photos if photo not in set(aside)]


def _some(pool: list[data.Photo], each: int, seed: int) -> list[data.Photo]:
    mixed = random.Random(seed).sample(pool, len(pool))
    if not each:
        return mixed
    labels = {photo.label for photo in pool}
    return [photo for label in sorted(labels) for photo in [one for one in mixed if one.label == label][:each]]


def _link(source: Path, photos: list[data.Photo], folder: Path) -> None:
    for photo in photos:
        path = folder / photo.label / Path(photo.path).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to((source / photo.path).resolve())


@click.command()
@click.option("--data", "source", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", required=True, help="'imagenet', or the PATH of a state_dict.")
@click.option("--epochs", default=Recipe().epochs, show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="With torch.compile, which pays where photos are many.")
@click.option("--seeds", default=1, show_default=True, help="Draws of each situation, which are averaged.")
@click.option("--only", multiple=True, type=int, help="Number of a situation, from 1; all where none is given.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep runs here.  [default: a temporary folder]")
def main(
    source: Path, weights: str, epochs: int, compiled: bool, seeds: int, only: tuple[int, ...], folder: Path | None
) -> None:
    """How often auto is right, or within a point of the winner."""
    place = Path(tempfile.mkdtemp(prefix="strategies-")) if folder is None else folder
    try:
        result = run(source, weights, Recipe(epochs=epochs, compile=compiled), seeds, set(only), place, Sizes())
    finally:
        if folder is None:
            shutil.rmtree(place)
    print(json.dumps(result))


def run(
    source: Path, weights: str, recipe: Recipe, seeds: int, only: set[int], folder: Path, sizes: Sizes
) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for number, situation in enumerate(situations(folder / str(seed), source, seed, sizes), start=1):
            if not only or number in only:
                runs = folder / str(seed) / f"runs-{number}"
                one = measure(situation, dataclasses.replace(recipe, seed=seed), weights, runs, Machine(), Terminal())
                found.setdefault(situation.name, []).append(one)
    verdicts = {name: judged(repeats) for name, repeats in found.items()}
    right = sum(verdict["right"] for verdict in verdicts.values())
    return {"right": right, "of": len(verdicts), "epochs": recipe.epochs, "seeds": seeds, "situations": verdicts}


if __name__ == "__main__":
    main()
