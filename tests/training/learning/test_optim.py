import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from training.config import Recipe
from training.learning import optim
from training.networks import weights


@pytest.fixture(scope="module")
def model():
    return weights.build(Recipe(), 3, "none")


def test_earlier_blocks_learn_more_slowly(model):
    groups = optim.parameter_groups(model, Recipe(lr=1.0, layer_decay=0.5))
    rates = {id(part): group["lr"] for group in groups for part in group["params"]}
    assert rates[id(model.head.weight)] == groups[0]["lr"] == 1.0
    assert rates[id(model.features[-1][0].weight)] == 0.5
    assert rates[id(model.features[0][0].weight)] == 0.5 ** len(model.features)


def test_every_parameter_is_in_one_group_and_only_matrices_decay(model):
    groups = optim.parameter_groups(model, Recipe(weight_decay=0.1))
    listed = [id(part) for group in groups for part in group["params"]]
    assert sorted(listed) == sorted(id(part) for part in model.parameters())
    for group in groups:
        assert all((part.ndim > 1) == (group["weight_decay"] > 0) for part in group["params"])


def test_frozen_weights_are_in_no_group_and_the_rates_of_others_stay():
    model = weights.build(Recipe(), 3, "none")
    for block in model.features[:-2]:
        block.requires_grad_(requires_grad=False)
    groups = optim.parameter_groups(model, Recipe(lr=1.0, layer_decay=0.5))
    listed = {id(part): group["lr"] for group in groups for part in group["params"]}
    assert listed.keys() == {id(part) for part in model.parameters() if part.requires_grad}
    assert sorted(set(listed.values())) == [0.25, 0.5, 1.0]


def test_the_optimizer_is_the_one_asked_for(model):
    assert isinstance(optim.optimizer(model, Recipe(optimizer="adamw")), torch.optim.AdamW)
    rmsprop = optim.optimizer(model, Recipe(optimizer="rmsprop", momentum=0.8))
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert rmsprop.defaults["momentum"] == 0.8
    sgd = optim.optimizer(model, Recipe(momentum=0.8))
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.8, True)
    assert optim.optimizer(model, Recipe(momentum=0.0)).defaults["nesterov"] is False


def moved(gradient, **fields):
    """How far the head's weights, 0.5 each, move at rate 1 along a gradient that is the same everywhere."""
    recipe = Recipe(**{"backbone": "mlp", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, **fields})
    model = weights.build(recipe, 3, "none")
    for part in model.features.parameters():
        part.requires_grad_(requires_grad=False)
    with torch.no_grad():
        model.head.weight.fill_(0.5)
    for part in model.head.parameters():
        part.grad = torch.full_like(part, gradient)
    optimizer = optim.optimizer(model, recipe)
    optim.move(model, optimizer, GradScaler("cpu", enabled=False), recipe)
    assert all(part.grad is None for part in model.parameters())
    return model.head.weight.detach() - 0.5


def test_long_gradients_are_cut_to_the_length_allowed():
    count = 3 * 500 + 3  # weights and biases of the head
    assert torch.allclose(moved(0.25), torch.tensor(-0.25))
    assert torch.allclose(moved(0.25, clip_norm=1.0), torch.tensor(-1 / count**0.5), rtol=1e-4)
    assert torch.allclose(moved(0.25, clip_norm=1000.0), torch.tensor(-0.25))


def test_l1_pulls_the_heads_weights_by_its_share_of_the_rate_and_to_true_zero():
    assert torch.allclose(moved(0.0, l1=0.125), torch.tensor(-0.125))
    assert torch.allclose(moved(0.0, l1=0.125, lr=0.5), torch.tensor(-0.0625))
    assert torch.equal(moved(0.0, l1=0.75), torch.full((3, 500), -0.5))  # 0.5 away from 0 is nearer than 0.75
    assert torch.allclose(moved(1.0, l1=0.25), torch.tensor(-0.75))  # from 0.5 over to -0.5, and back by 0.25


def test_l1_with_weight_decay_is_an_elastic_net():
    assert torch.allclose(moved(0.0, l1=0.125, weight_decay=0.5), torch.tensor(-0.25 - 0.125))


@pytest.mark.parametrize(
    ("backbone", "fields", "state", "expected"),
    [
        ("mobilenet_v2", {}, {"frozen": False, "pretrained": True}, 0.01),
        ("mobilenet_v2", {}, {"frozen": True, "pretrained": True}, 0.001),
        ("mobilenet_v2", {"optimizer": "adamw"}, {"frozen": True, "pretrained": True}, 0.00005),
        ("mobilenet_v2", {"optimizer": "adamw"}, {"frozen": False, "pretrained": False}, 0.0005),
        ("mobilenet_v2", {"lr": 0.02}, {"frozen": True, "pretrained": True}, 0.02),
        ("alexnet", {}, {"frozen": False, "pretrained": True}, 0.001),
        ("small_cnn", {}, {"frozen": False, "pretrained": False}, 0.01),
        ("convnext_tiny", {}, {"frozen": True, "pretrained": True}, 0.01),
    ],
)
def test_the_rate_is_lower_where_no_norm_steadies_what_is_tuned(backbone, fields, state, expected):
    recipe = Recipe(backbone=backbone, **fields)
    model = weights.empty(recipe, 3)
    assert optim.with_rate(recipe, model, **state).lr == pytest.approx(expected)


def test_a_new_head_alone_learns_at_the_full_rate():
    model = weights.empty(Recipe(), 3)
    model.features.requires_grad_(requires_grad=False)
    assert optim.with_rate(Recipe(), model, frozen=True, pretrained=True).lr == 0.01


def shifted(model, by):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(by)


def test_the_average_follows_weights_and_buffers():
    model = weights.build(Recipe(), 3, "none")
    ema = optim.Ema(model, 0.9)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shifted(model, 1)
    ema.update(model, 1000)  # past the warm-up
    state = ema.module.state_dict()
    for name in ("head.bias", "features.0.1.running_mean"):
        assert torch.allclose(state[name], start[name] + 0.1)
    assert state["features.0.1.num_batches_tracked"] == start["features.0.1.num_batches_tracked"] + 1


def test_the_first_steps_forget_the_start_quickly():
    model = weights.build(Recipe(), 3, "none")
    ema = optim.Ema(model, 0.999)
    start = model.head.bias.clone()
    shifted(model, 1)
    ema.update(model, 1)
    assert torch.allclose(ema.module.head.bias, start + 1 - 2 / 11)


def test_no_decay_keeps_the_raw_weights():
    model = weights.build(Recipe(), 3, "none")
    ema = optim.Ema(model, 0.0)
    shifted(model, 1)
    ema.update(model, 1)
    assert weights.digest(ema.module) == weights.digest(model)
