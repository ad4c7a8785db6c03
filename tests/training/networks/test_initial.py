import math

import pytest
import torch
from torch import nn

from training.config import Recipe
from training.errors import RecipeInvalid
from training.networks import initial, weights

INPUTS, OUTPUTS = 200, 600


def drawn(choice: str, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(INPUTS, OUTPUTS)
    initial.draw(layer, Recipe(head_init=choice, seed=seed))
    return layer


@pytest.mark.parametrize(
    ("choice", "deviation"),
    [
        ("normal", math.sqrt(1 / INPUTS)),
        ("uniform", math.sqrt(1 / INPUTS)),
        ("kaiming", math.sqrt(2 / INPUTS)),
        ("xavier", math.sqrt(2 / (INPUTS + OUTPUTS))),
        ("orthogonal", math.sqrt(2 / OUTPUTS)),  # more rows than inputs: the columns are of length √2
    ],
)
def test_each_choice_has_its_deviation_and_no_bias(choice, deviation):
    layer = drawn(choice)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert layer.weight.mean().item() == pytest.approx(0, abs=deviation / 50)
    assert not layer.bias.any()


def test_uniform_is_bounded_and_orthogonal_is_orthogonal():
    assert drawn("uniform").weight.abs().max() <= math.sqrt(3 / INPUTS)
    columns = drawn("orthogonal").weight
    assert torch.allclose(columns.T @ columns, 2 * torch.eye(INPUTS), atol=1e-4)


def test_a_convolution_counts_all_that_one_output_sees():
    layer = nn.Conv2d(20, 400, 3, bias=False)
    initial.draw(layer, Recipe(head_init="normal"))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(1 / 180), rel=0.02)


def test_the_seed_decides_and_the_common_random_state_stays():
    before = torch.get_rng_state()
    first, same, other = drawn("kaiming", 1), drawn("kaiming", 1), drawn("kaiming", 2)
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    torch.set_rng_state(before)
    layer = nn.Linear(2, 2)
    before = torch.get_rng_state()
    initial.draw(layer, Recipe())
    assert torch.equal(torch.get_rng_state(), before)


def test_zeros_are_refused_with_the_reason():
    with pytest.raises(RecipeInvalid, match=r"'head_init' is 'zeros'; expected .*the same gradient"):
        Recipe(head_init="zeros")


def test_a_network_from_random_weights_starts_as_a_whole_by_the_choice():
    kaiming, normal = (weights.build(Recipe(head_init=choice), 3, "none") for choice in ("kaiming", "normal"))
    wide = normal.features[-1][0].weight
    assert wide.std().item() == pytest.approx(math.sqrt(1 / wide[0].numel()), rel=0.02)
    assert kaiming.features[-1][0].weight.std().item() != pytest.approx(wide.std().item(), rel=0.1)


def test_pretrained_weights_are_not_drawn_again(backbone_file):
    model = weights.build(Recipe(head_init="normal"), 3, str(backbone_file))
    state = torch.load(backbone_file, weights_only=True)
    assert torch.equal(model.features[-1][0].weight, state["features.18.0.weight"])
    assert model.head.weight.std().item() == pytest.approx(math.sqrt(1 / 1280), rel=0.05)
