import math

import pytest
import torch

from training.config import Recipe
from training.learning import optim
from training.networks import weights


@pytest.fixture(scope="module")
def model():
    return weights.build(Recipe(), 3, "none")


def test_earlier_blocks_learn_more_slowly(model):
    groups = optim.parameter_groups(model, Recipe(lr=1.0, layer_decay=0.5))
    rates = {id(part): group["lr"] for group in groups for part in group["params"]}
    assert rates[id(model.head.weight)] == 1.0
    assert rates[id(model.features[-1][0].weight)] == 0.5
    assert rates[id(model.features[0][0].weight)] == 0.5 ** len(model.features)


def test_every_parameter_is_in_one_group_and_only_matrices_decay(model):
    groups = optim.parameter_groups(model, Recipe(weight_decay=0.1))
    listed = [id(part) for group in groups for part in group["params"]]
    assert sorted(listed) == sorted(id(part) for part in model.parameters())
    for group in groups:
        assert all((part.ndim > 1) == (group["weight_decay"] > 0) for part in group["params"])


def test_the_optimizer_is_the_one_asked_for(model):
    assert isinstance(optim.optimizer(model, Recipe(optimizer="adamw")), torch.optim.AdamW)
    sgd = optim.optimizer(model, Recipe(momentum=0.8))
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    assert optim.optimizer(model, Recipe(momentum=0.0)).defaults["nesterov"] is False


def test_the_rate_warms_up_then_falls_to_zero_along_a_cosine():
    parameter = torch.nn.Parameter(torch.zeros(1))
    adjusted = torch.optim.SGD([parameter], lr=1.0)
    schedule = optim.schedule(adjusted, Recipe(epochs=10, warmup_epochs=2), steps_per_epoch=10)
    rates = []
    for _ in range(100):
        rates.append(adjusted.param_groups[0]["lr"])
        adjusted.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.15])
    assert rates[19] == max(rates) == 1.0
    assert rates[60] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
    assert adjusted.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
