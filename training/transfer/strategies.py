"""The ways to get from pretrained weights to a classifier of one's own: by size of the data and patience."""

import dataclasses
from pathlib import Path

from training.config import Machine, Recipe
from training.dataset import decoded
from training.learning import loop
from training.learning.loop import Epoch
from training.networks.backbones import Classifier
from training.progress import Reporter
from training.run_context import RunContext
from training.transfer import frozen
from training.transfer.fitting import fit_head


def run(
    model: Classifier,
    material: RunContext,
    recipe: Recipe,
    machine: Machine,
    folder: Path,
    cache_root: Path,
    reporter: Reporter,
    *,
    pretrained: bool,
) -> None:
    """Train `model` in place by the recipe's strategy; what it needs to resume lies in `folder`.

    `head` and `truncate` (whose model is cut already) fit a head on cached features, or train a new one in the loop on
    random views. Fine-tuning begins with the fitted head, unless the backbone is random: then no head would fit what it
    becomes.
    """
    model.to(material.device)
    frozen.freeze(model, recipe)
    if _fits(recipe, pretrained=pretrained):
        start = fit_head(model, material, recipe, folder, cache_root, reporter)
    else:
        start = Epoch(0, 0.0, None, *loop.validate(model, material, reporter))
    if _only_fits(recipe):
        loop.write_curves(folder, [start])
    else:
        material = _with_stored(material, recipe, cache_root.with_name("decoded"), reporter)
        kept = pretrained and recipe.strategy != "scratch"  # whether the model is still what its weights made of it
        loop.finetune(model, start, material, recipe, machine, folder, reporter, pretrained=kept)


def _with_stored(material: RunContext, recipe: Recipe, cache: Path, reporter: Reporter) -> RunContext:
    """The loop's photos ready decoded, where the recipe wants that."""
    if recipe.stored_size == 0:
        return material
    stored = decoded.store(material.root, material.photos("train"), recipe.stored_size, cache, reporter)
    return dataclasses.replace(material, stored=stored)


def _only_fits(recipe: Recipe) -> bool:
    return recipe.strategy in frozen.HEAD_ALONE and recipe.head_features == "cached"


def _fits(recipe: Recipe, *, pretrained: bool) -> bool:
    return _only_fits(recipe) or (recipe.strategy == "finetune" and pretrained)
