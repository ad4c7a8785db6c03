import pytest
import torch

from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import weights
from training.networks.backbones import truncated

PICTURES = torch.zeros(2, 3, 64, 64)


@pytest.mark.parametrize(("blocks", "width", "side"), [(1, 32, 32), (5, 32, 8), (19, 1280, 2)])
def test_the_first_blocks_stay_under_a_head_of_their_width(blocks, width, side):
    model = weights.build(Recipe(dropout=0.3), 3, "none").eval()
    shorter = truncated(model, blocks, Recipe()).eval()
    assert [*shorter.features] == [*model.features][:blocks]
    assert shorter.head.weight.shape == (3, width)
    assert shorter.dropout.p == 0.3
    assert shorter.features(PICTURES).shape == (2, width, side, side)
    assert shorter(PICTURES).shape == (2, 3)


def test_its_head_depends_on_the_seed_alone():
    model = weights.build(Recipe(), 3, "none")
    first, same, other = (truncated(model, 3, Recipe(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("blocks", [0, 20])
def test_blocks_that_the_network_does_not_have_are_refused(blocks):
    model = weights.build(Recipe(), 3, "none")
    with pytest.raises(RecipeInvalid, match=r"'keep_blocks' is \d+; expected 1 to 19, the blocks of mobilenet_v2"):
        truncated(model, blocks, Recipe())


def test_a_finished_run_is_rebuilt_from_its_recipe():
    recipe = Recipe(strategy="truncate", keep_blocks=4)
    trained = truncated(weights.build(recipe, 3, "none"), 4, recipe)
    again = weights.empty(recipe, 3)
    again.load_state_dict(trained.state_dict())
    assert weights.digest(again) == weights.digest(trained)


def test_blocks_to_keep_mean_nothing_to_another_strategy():
    assert len(weights.empty(Recipe(strategy="finetune", keep_blocks=4), 3).features) == 19
