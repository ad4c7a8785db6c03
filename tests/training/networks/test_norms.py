import pytest
import torch

from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import norms, weights


@pytest.mark.parametrize(
    ("batch_norm", "photos", "pretrained", "expected"),
    [
        ("auto", 999, True, True),
        ("auto", 1000, True, False),
        ("auto", 10, False, False),
        ("frozen", 100_000, True, True),
        ("train", 10, True, False),
        ("train", 10, False, False),
    ],
)
def test_small_data_keeps_the_statistics_of_pretrained_weights(batch_norm, photos, pretrained, expected):
    assert norms.frozen(Recipe(batch_norm=batch_norm), photos, pretrained) is expected


def test_statistics_of_random_weights_cannot_be_kept():
    with pytest.raises(RecipeInvalid, match=r"'batch_norm' is 'frozen'; expected auto or train with random weights"):
        norms.frozen(Recipe(batch_norm="frozen"), 10, pretrained=False)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_outlive_steps_in_which_all_else_learns(frozen):
    model = weights.build(Recipe(), 3, "none")
    norm = model.features[0][1]
    before = norm.running_mean.clone()
    for _ in range(2):
        norms.train_mode(model, frozen)
        model(torch.randn(4, 3, 32, 32) + 1).sum().backward()
        assert model.dropout.training
        assert norm.training is not frozen
    assert torch.equal(norm.running_mean, before) is frozen
    assert norm.weight.grad.any()


def test_fixed_blocks_neither_follow_batches_nor_drop_anything():
    model = weights.build(Recipe(backbone="efficientnet_b0"), 3, "none")
    fixed, learning = [*model.features][:9], [*[*model.features][9:], model.dropout, model.head]
    for block in fixed:
        block.requires_grad_(requires_grad=False)
    norms.train_mode(model, frozen=False)
    assert not any(part.training for block in fixed for part in block.modules())
    assert all(part.training for block in learning for part in block.modules())
