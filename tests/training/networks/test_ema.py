import torch

from training.config import Recipe
from training.networks import weights
from training.networks.ema import Ema


def shifted(model, by):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(by)


def test_the_average_follows_weights_and_buffers():
    model = weights.build(Recipe(), 3, "none")
    ema = Ema(model, 0.9)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shifted(model, 1)
    ema.update(model, 1000)  # past the warm-up
    state = ema.module.state_dict()
    for name in ("head.bias", "features.0.1.running_mean"):
        assert torch.allclose(state[name], start[name] + 0.1)
    assert state["features.0.1.num_batches_tracked"] == start["features.0.1.num_batches_tracked"] + 1


def test_the_first_steps_forget_the_start_quickly():
    model = weights.build(Recipe(), 3, "none")
    ema = Ema(model, 0.999)
    start = model.head.bias.clone()
    shifted(model, 1)
    ema.update(model, 1)
    assert torch.allclose(ema.module.head.bias, start + 1 - 2 / 11)


def test_no_decay_keeps_the_raw_weights():
    model = weights.build(Recipe(), 3, "none")
    ema = Ema(model, 0.0)
    shifted(model, 1)
    ema.update(model, 1)
    assert weights.digest(ema.module) == weights.digest(model)
