"""Fits the best linear head on the frozen features of unaugmented photos."""

import dataclasses

import torch

from training.files import write_json_lines
from training.learning.loop import Epoch
from training.learning.objective import class_weights
from training.networks.backbones import Classifier
from training.runs.context import TrainingSession
from training.transfer import features, head
from training.transfer.head import Examples


def fit_head(model: Classifier, session: TrainingSession) -> Epoch:
    """Give the model the best linear head on its frozen features; returns its row, and writes `head.jsonl`.

    Features come from the cache as far as it goes.
    """
    context, recipe = session.context, session.recipe
    cache = features.cache_for(session.feature_cache, model, context.preprocessing)
    photos = {part: context.photos(part) for part in ("train", "val")}
    every = [*photos["train"], *photos["val"]]
    rows = torch.from_numpy(
        features.compute(context.inference(session.reporter), every, model, context.preprocessing, cache)
    )
    train, val = rows.tensor_split([len(photos["train"])])
    targets, classes = context.targets("train"), model.head.out_features
    balance = None if recipe.balance == "none" else class_weights(targets, classes)
    found = head.fit(
        Examples(train, targets), Examples(val, context.targets("val")), classes, recipe.label_smoothing, balance
    )
    with torch.no_grad():
        model.head.weight.copy_(found.weight)
        model.head.bias.copy_(found.bias)
    write_json_lines(session.folder / "head.jsonl", [dataclasses.asdict(trial) for trial in found.trials])
    best = found.best
    session.reporter.say(
        f"head       train loss {best.train_loss:.4f}  val loss {best.val_loss:.4f}  val top-1 {best.val_top1:.4f}"
    )
    return Epoch(0, 0.0, best.train_loss, best.val_loss, best.val_top1)
