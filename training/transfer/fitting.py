"""The best linear head on what a frozen network sees in the photos as they are."""

import dataclasses
from pathlib import Path

import torch

from training.config import Recipe
from training.files import write_json_lines
from training.learning.balance import class_weights
from training.learning.loop import Epoch
from training.networks.backbones import Classifier
from training.progress import Reporter
from training.run_context import RunContext
from training.transfer import features, head
from training.transfer.head import Examples


def fit_head(
    model: Classifier, material: RunContext, recipe: Recipe, folder: Path, cache_root: Path, reporter: Reporter
) -> Epoch:
    """Give the model the best linear head on its frozen features; returns its row, and writes `folder/head.jsonl`.

    Features come from the cache as far as it goes.
    """
    cache = features.cache_for(cache_root, model, material.preprocessing)
    photos = {part: material.photos(part) for part in ("train", "val")}
    every = [*photos["train"], *photos["val"]]
    rows = torch.from_numpy(
        features.compute(material.root, every, model, material.preprocessing, cache, material.lanes, reporter)
    )
    train, val = rows.tensor_split([len(photos["train"])])
    targets, classes = material.targets("train"), model.head.out_features
    balance = None if recipe.balance == "none" else class_weights(targets, classes)
    found = head.fit(
        Examples(train, targets), Examples(val, material.targets("val")), classes, recipe.label_smoothing, balance
    )
    with torch.no_grad():
        model.head.weight.copy_(found.weight)
        model.head.bias.copy_(found.bias)
    write_json_lines(folder / "head.jsonl", [dataclasses.asdict(trial) for trial in found.trials])
    best = found.best
    reporter.say(
        f"head       train loss {best.train_loss:.4f}  val loss {best.val_loss:.4f}  val top-1 {best.val_top1:.4f}"
    )
    return Epoch(0, 0.0, best.train_loss, best.val_loss, best.val_top1)
