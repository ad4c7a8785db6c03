"""What the recipe leaves open is measured and decided before training, and stays decided when the run goes on."""

import dataclasses
from pathlib import Path

import numpy as np

from training.networks import weights
from training.progress import Reporter
from training.run import Run
from training.run_context import RunContext
from training.transfer import auto, depths, similarity
from training.transfer.chosen import CHOSEN, Chosen, is_open
from training.transfer.similarity import Similarity


def choose(started: Run, material: RunContext, cache_root: Path, reporter: Reporter) -> None:
    """Decide where the recipe is open: leaves `chosen.json`, by which `Run.recipe` has nothing open from then on."""
    if not is_open(started.recipe()):
        return
    found = _decide(started, material, cache_root, reporter)
    started.write(CHOSEN, found)
    reporter.say(f"strategy   {' '.join(found.reasons)}")


def _decide(started: Run, material: RunContext, cache_root: Path, reporter: Reporter) -> Chosen:
    photos, classes = len(material.photos("train")), len(material.split.labels)
    if started.recipe().strategy == "truncate":
        return auto.depth_only(measure(started, material, cache_root, reporter))
    pretrained = started.source().weights_identity != "none"
    measured = measure(started, material, cache_root, reporter) if pretrained else None
    return auto.decide(photos, classes, measured)


def measure(started: Run, material: RunContext, cache_root: Path, reporter: Reporter) -> Similarity:
    """Scores of the run's untrained network at several depths, on photos of the training split alone."""
    whole = dataclasses.replace(started.recipe(), strategy="finetune", keep_blocks=0)
    model = weights.build(whole, len(material.split.labels), started.source().weights).to(material.device)
    photos = depths.sample(material.photos("train"))
    features = depths.compute(model, photos, material, cache_root, reporter)
    return similarity.measure(features, np.array(material.split.targets(photos)))
