from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from tests.training import published
from training import config
from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import weights
from training.networks.backbones import BACKBONES, channels, truncated

PICTURES = torch.zeros(2, 3, 64, 64)
BLOCKS = {
    "mobilenet_v2": 19,
    "mobilenet_v3_small": 13,
    "mobilenet_v3_large": 17,
    "efficientnet_b0": 18,
    "resnet18": 9,
    "resnet50": 17,
    "convnext_tiny": 19,
    "vgg16": 13,
    "alexnet": 5,
    "small_cnn": 4,
    "mlp": 2,
}


def own_map(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The last feature map as the published network itself computes it."""
    maps = []
    last = network.layer4 if hasattr(network, "layer4") else network.features
    last.register_forward_hook(lambda module, arguments, output: maps.append(output.clone()))
    network(inputs)
    norm = network.classifier[0] if hasattr(network, "classifier") else None
    return norm(maps[0]) if isinstance(norm, nn.LayerNorm) else maps[0]


def test_the_table_has_what_a_recipe_may_ask_for():
    assert set(BACKBONES) == set(get_args(config.Backbone)) == set(BLOCKS)


@pytest.mark.parametrize("name", BACKBONES)
def test_its_blocks_lead_from_inputs_to_the_head(name):
    """The first layer with weights is a convolution on the photo: export moves the scale of pixels into it."""
    model = weights.build(Recipe(backbone=name, seed=1), 3, "none").eval()
    assert len(model.features) == BLOCKS[name]
    first = next(part for part in model.features.modules() if next(part.parameters(recurse=False), None) is not None)
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == 3
    side = BACKBONES[name].smallest
    maps = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert model(maps).shape == (2, 3)
        for depth, block in enumerate(model.features, start=1):
            maps = block(maps)
            assert channels(model.features[:depth]) == maps.shape[1]


CUT_ALIKE = {"resnet50", "vgg16"}  # as resnet18 and alexnet are, and slow to draw


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].weights_url and name not in CUT_ALIKE])
def test_a_published_file_gives_the_published_features(name, tmp_path):
    network, inputs = published.network(name), torch.randn(2, 3, 64, 64)
    model = weights.build(Recipe(backbone=name), 3, str(published.write(network, tmp_path / "weights.pth"))).eval()
    with torch.no_grad():
        assert torch.allclose(model.features(inputs), own_map(network, inputs), rtol=1e-3, atol=1e-4)


def test_the_narrow_mobilenet_is_narrow():
    wide, narrow = (weights.build(Recipe(width=width), 3, "none") for width in (1.0, 0.5))
    assert narrow.features[0][0].out_channels == wide.features[0][0].out_channels // 2
    assert narrow.head.in_features == 1280


def test_the_mlps_convolutions_are_dense_layers_on_the_shrunken_photo():
    model = weights.build(Recipe(backbone="mlp"), 3, "none").eval()
    inputs = torch.randn(2, 3, 40, 50)
    values = adaptive_avg_pool2d(inputs, 32).flatten(1)
    for layer in (part for part in model.features.modules() if isinstance(part, nn.Conv2d)):
        values = (values @ layer.weight.flatten(1).T + layer.bias).relu()
    assert torch.allclose(model.pooled(inputs), values, atol=1e-4)


def test_dropping_a_dense_unit_of_the_cnn_drops_it_at_each_place():
    model = weights.build(Recipe(backbone="small_cnn", dropout=0.5), 3, "none").eval()
    inputs = torch.randn(2, 3, 32, 32)
    maps = model.features(inputs)
    kept = (torch.rand(2, 500, 1, 1) > 0.5).float()
    assert maps.shape == (2, 500, 4, 4)
    assert torch.allclose((maps * kept).mean((2, 3)), maps.mean((2, 3)) * kept[..., 0, 0], atol=1e-6)


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
