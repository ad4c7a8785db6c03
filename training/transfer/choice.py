"""Chooses the strategy by the number of photos and by how well pretrained features separate the classes.

Few photos cannot teach a whole network: they can only choose among features that it has. So with few, the depth that
serves them best decides; with many, tuning everything wins whether the source data were like them or not (Kornblith et
al. 2019, "Do Better ImageNet Models Transfer Better?"; Yosinski et al. 2014, "How transferable are features…").
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from training.config import Recipe, Strategy
from training.networks import weights
from training.progress import Reporter
from training.runs.context import RunContext
from training.runs.records import Chosen, Depth, Similarity
from training.runs.run import CHOSEN, Run
from training.transfer import depths, similarity

FEW = 20  # training photos a class; from here on tuning everything beats a new head
SOLVED = 0.99  # accuracy of the probe that leaves tuning less than a point to gain
UNLIKE = 0.4  # of the way from chance to 1; below that no depth has features that fit, and with few photos tuning may


def choose(started: Run, context: RunContext, cache_root: Path, reporter: Reporter) -> None:
    """Decide what the recipe leaves open, once: the run's `chosen.json` completes `Run.recipe` from then on."""
    if not is_open(started.recipe()):
        return
    found = _decide(started, context, cache_root, reporter)
    started.write(CHOSEN, found)
    reporter.say(f"strategy   {' '.join(found.reasons)}")


def _decide(started: Run, context: RunContext, cache_root: Path, reporter: Reporter) -> Chosen:
    photos, classes = len(context.photos("train")), len(context.split.labels)
    if started.recipe().strategy == "truncate":
        return depth_only(measure(started, context, cache_root, reporter))
    pretrained = started.source().weights_identity != "none"
    measured = measure(started, context, cache_root, reporter) if pretrained else None
    return decide(photos, classes, measured)


def measure(started: Run, context: RunContext, cache_root: Path, reporter: Reporter) -> Similarity:
    """Scores of the run's untrained network at several depths, on photos of the training split alone."""
    whole = dataclasses.replace(started.recipe(), strategy="finetune", keep_blocks=0)
    model = weights.build(whole, len(context.split.labels), started.source().weights).to(context.device)
    photos = depths.sample(context.photos("train"))
    features = depths.compute(model, photos, context, cache_root, reporter)
    return similarity.measure(features, np.array(context.split.targets(photos)))


def is_open(recipe: Recipe) -> bool:
    """Whether something must be measured before this recipe can be trained."""
    return recipe.strategy == "auto" or (recipe.strategy == "truncate" and recipe.keep_blocks == 0)


def decide(photos: int, classes: int, measured: Similarity | None) -> Chosen:
    """The strategy for `photos` training photos; `measured` is None where there are no pretrained weights."""
    size = f"There are {photos} training photos of {classes} classes, {photos / classes:.0f} a class"
    if measured is None:
        reason = "Nothing pretrained can be kept, so the network is trained from random weights (scratch)."
        return Chosen("scratch", 0, (f"{size}, and no pretrained weights.", reason))
    strategy, reason = _of_few(measured) if photos / classes < FEW else _of_many(measured)
    blocks = best_depth(measured).blocks if strategy == "truncate" else 0
    return Chosen(strategy, blocks, (f"{size}; {_scores(measured)}.", f"{reason} ({strategy})."), measured)


def _of_many(measured: Similarity) -> tuple[Strategy, str]:
    last = measured.depths[-1]
    if last.linear >= SOLVED:
        return "head", "A new head alone solves this, and tuning more has less than a point to gain"
    if _at_chance(measured):
        return "scratch", "No depth of the pretrained network is better than chance, so nothing of it is worth keeping"
    if _fit(last.linear, measured.chance) < UNLIKE:
        return "finetune", "That is enough to tune the whole network, whose features are far from these photos yet"
    return "finetune", "That is enough to tune the whole network, and its features are a good start"


def _of_few(measured: Similarity) -> tuple[Strategy, str]:
    last, best = measured.depths[-1], best_depth(measured)
    if _fit(best.linear, measured.chance) < UNLIKE:
        return "finetune", "Few photos, but at no depth do features fit them, so the features themselves must move"
    if best.both - last.both > _error(best.both, measured.photos):
        reason = f"Few photos call for ready features, and those after {best.blocks} blocks fit better than the last"
        return "truncate", reason
    return "head", "Few photos call for ready features, and the last ones fit about as well as any"


def best_depth(measured: Similarity) -> Depth:
    """The depth that a linear probe likes best; among equals the deepest."""
    return max(measured.depths, key=lambda depth: (depth.linear, depth.blocks))


def depth_only(measured: Similarity) -> Chosen:
    """The blocks to keep where the recipe says `truncate` and leaves their number open."""
    best = best_depth(measured)
    reason = f"The first {best.blocks} blocks are kept, whose features the probe likes best (truncate)."
    return Chosen(
        "truncate", best.blocks, (f"On {measured.photos} training photos {_scores(measured)}.", reason), measured
    )


def _scores(measured: Similarity) -> str:
    last, best = measured.depths[-1], best_depth(measured)
    inner = "" if best is last else f", after {best.blocks} of {last.blocks} blocks {best.linear:.2f} ({best.knn:.2f})"
    return (
        f"a linear probe (k-NN) on the pretrained network's last features gets {last.linear:.2f} ({last.knn:.2f}) "
        f"right{inner}, where chance is {measured.chance:.2f}"
    )


def _fit(score: float, chance: float) -> float:
    """0 at chance and 1 where all is right."""
    return (score - chance) / max(1 - chance, 1e-9)


def _at_chance(measured: Similarity) -> bool:
    """Whether no score of any depth exceeds chance by more than two standard errors."""
    highest = max(max(depth.linear, depth.knn) for depth in measured.depths)
    return highest - measured.chance <= 2 * _error(measured.chance, measured.photos)


def _error(share: float, photos: int) -> float:
    """Standard error of a share of `photos`; that of half of one where all or none are right."""
    share = min(max(share, 0.5 / photos), 1 - 0.5 / photos)
    return math.sqrt(share * (1 - share) / photos)
