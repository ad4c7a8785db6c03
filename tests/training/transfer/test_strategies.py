import numpy as np
import pytest
import torch
from torch import nn

from training import pipeline
from training.config import Machine, Recipe
from training.progress import Silent
from training.runs.records import TrainingRequest
from training.runs.run import CHOSEN, Run
from training.transfer import choice, strategies

MACHINE = Machine("cpu", 0)


@pytest.fixture
def trained(tmp_path, photos, recipe, backbone_file):
    """trained(**fields) trains on the drawn photos in one epoch; gives run, model and published weights."""

    def train(weights=None, **fields):
        asked = recipe(epochs=1, ema_decay=0.0, **fields)
        request = TrainingRequest(photos, "colours", weights or str(backbone_file), tmp_path / "runs")
        started = pipeline.begin(request, asked, Silent())
        return started, pipeline.trained(started, pipeline.fit(started, MACHINE, Silent()))

    return train


@pytest.fixture
def published(backbone_file):
    """The blocks of the weights that training starts from."""
    from training.networks import weights

    return weights.build(Recipe(), 3, str(backbone_file)).features


def same(block: nn.Module, other: nn.Module) -> bool:
    """Bit for bit, statistics of batch norms too."""
    pairs = zip(block.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def after_an_epoch(run, model):
    """The model as the loop left it, which may be worse than the best one that the run keeps."""
    model.load_state_dict(torch.load(run.path / "checkpoint.pt", weights_only=True)["parts"]["model"])
    return model


def unchanged(model, published):
    return [same(block, other) for block, other in zip(model.features, published, strict=False)]


@pytest.mark.parametrize("how", ["cached", "augmented"])
def test_head_leaves_the_network_as_it_came(trained, published, how):
    run, model = trained(strategy="head", head_features=how, batch_norm="train")
    assert all(unchanged(model, published))
    assert len(model.features) == len(published)
    assert run.has("head.jsonl") == (how == "cached")
    rows = run.rows("curves.jsonl")
    assert [row["train_loss"] is None for row in rows] == ([False] if how == "cached" else [True, False])
    if how == "augmented":
        assert all(unchanged(after_an_epoch(run, model), published))
        assert rows[1]["val_loss"] < rows[0]["val_loss"]


def test_truncate_keeps_the_first_blocks_as_they_came(trained, published):
    run, model = trained(strategy="truncate", keep_blocks=5)
    assert len(model.features) == 5
    assert all(unchanged(model, published))
    assert model.head.in_features == 32
    assert not run.has(CHOSEN)
    assert run.rows("curves.jsonl")[0]["val_top1"] == 1.0  # colours are seen early


def test_truncate_without_a_depth_takes_the_one_that_a_probe_likes_best(trained):
    run, model = trained(strategy="truncate")
    chosen = run.chosen()
    best = max(chosen.similarity.depths, key=lambda depth: (depth.linear, depth.blocks))
    assert chosen.keep_blocks == best.blocks == len(model.features) == run.recipe().keep_blocks
    assert run.asked().keep_blocks == 0
    assert chosen.similarity.photos == sum(photo.part == "train" for photo in run.split().photos)


def test_finetune_of_the_last_blocks_leaves_the_others_as_they_came(trained, published):
    run, model = trained(strategy="finetune", tuned_blocks=2, batch_norm="train")
    assert unchanged(after_an_epoch(run, model), published) == [True] * 17 + [False] * 2


def test_finetune_moves_everything(trained, published):
    run, model = trained(strategy="finetune", batch_norm="train")
    assert not any(unchanged(after_an_epoch(run, model), published))


def test_scratch_uses_no_weights_and_does_not_say_otherwise(trained, published):
    run, model = trained(strategy="scratch")
    assert not any(unchanged(model, published))
    assert run.source().weights_identity == "none"
    assert not run.has("head.jsonl")
    assert run.rows("curves.jsonl")[0]["train_loss"] is None


def test_auto_decides_once_and_the_run_keeps_to_it(trained):
    run, _ = trained(strategy="auto")
    chosen = run.chosen()
    assert run.asked().strategy == "auto"
    assert run.recipe().strategy == chosen.strategy != "auto"
    assert chosen.reasons[1].endswith(f"({chosen.strategy}).")
    assert "3 classes" in chosen.reasons[0]
    resumed = pipeline.resume(Run(run.path), MACHINE, Silent())
    assert resumed.chosen() == chosen
    assert np.isfinite(resumed.evaluation().metrics.top1)


def test_auto_without_pretrained_weights_is_scratch(photos, recipe, tmp_path):
    request = TrainingRequest(photos, "colours", "none", tmp_path / "runs")
    started = pipeline.begin(request, recipe(strategy="auto"), Silent())
    choice.choose(started, pipeline.context_of(started, MACHINE), tmp_path / "cache", Silent())
    assert started.recipe().strategy == "scratch"
    assert started.chosen().similarity is None


def test_trainable_counts_what_may_move(backbone_file):
    from training.networks import weights

    model = weights.build(Recipe(), 3, str(backbone_file))
    counts = []
    recipes = ({"strategy": "head"}, {"tuned_blocks": 1}, {"tuned_blocks": 50}, {}, {"strategy": "scratch"})
    for fields in recipes:
        strategies.freeze(model, Recipe(**fields))
        counts.append(strategies.trainable(model))
    last = sum(part.numel() for part in model.features[-1].parameters())
    whole = sum(part.numel() for part in model.parameters())
    assert counts == [1280 * 3 + 3, 1280 * 3 + 3 + last, whole, whole, whole]
