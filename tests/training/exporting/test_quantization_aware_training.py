"""Training in eight bits: what is learned is to answer, rounded, as the model did before."""

import copy

import numpy as np
import pytest
import torch

from training import pipeline
from training.config import Machine
from training.dataset.split import PARTS
from training.exporting import quantization_aware_training
from training.networks import weights
from training.networks.normalization import normalized
from training.progress import Silent


@pytest.fixture
def context(finished):
    return pipeline.context_of(finished.run, Machine("cpu", 0))


@pytest.fixture
def inputs(context):
    photos = [photo for part in PARTS for photo in context.photos(part)]
    pixels = np.stack([context.preprocessing((context.root / photo.path).read_bytes()) for photo in photos])
    return normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.fixture
def plain(recipe):
    return recipe(backbone="small_cnn", trivial_augment=False, color_jitter=0.0, min_scale=1.0, batch_size=16)


@pytest.fixture
def model(plain):
    made = weights.build(plain, 3, "none").eval()
    with torch.no_grad():
        made.head.weight *= 10  # so that answers differ from photo to photo
    return made


def off(model, fine_tuned, inputs):
    """How far `fine_tuned` is from `model` once it is rounded."""
    student = quantization_aware_training.fake_quantized(fine_tuned)
    student.train()(inputs)  # to see ranges
    with torch.no_grad():
        return float(quantization_aware_training._difference(student.eval(), model, inputs))


def test_it_learns_to_answer_as_before(model, context, inputs, plain, monkeypatch):
    monkeypatch.setattr(quantization_aware_training, "_BITS", 3)  # 8 hurt this small network too little
    monkeypatch.setattr(quantization_aware_training, "_EPOCHS", 20)  # of one or two steps
    fine_tuned = quantization_aware_training.fine_tuned(model, context, plain, Silent())
    assert off(model, fine_tuned, inputs) < 0.5 * off(model, model, inputs)


def test_what_it_gives_is_a_plain_network_whose_weights_are_whole_steps(model, context, plain):
    given = copy.deepcopy(model.state_dict())
    fine_tuned = quantization_aware_training.fine_tuned(model, context, plain, Silent())
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in given.items())
    assert not any(part._forward_pre_hooks for part in fine_tuned.modules())
    assert not any(isinstance(part, quantization_aware_training._FakeQuantizedInput) for part in fine_tuned.modules())
    convolutions = [part for part in fine_tuned.features.modules() if isinstance(part, torch.nn.Conv2d)]
    assert convolutions
    for convolution in convolutions:
        steps = convolution.weight / convolution.weight.abs().amax((1, 2, 3), keepdim=True) * 127
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_rounding_follows_the_formula():
    values = torch.tensor([-1.0, -0.4, 0.0, 0.3, 2.0])
    expected = (values * 85).round() / 85  # 255 steps from -1 to 2
    torch.testing.assert_close(quantization_aware_training._FakeQuantizedInput()(values), expected, atol=1e-6, rtol=0)
    assert torch.equal(quantization_aware_training._FakeQuantizedInput()(torch.zeros(3)), torch.zeros(3))


def test_a_range_keeps_its_extremes_and_forgets_them_slowly():
    seen = quantization_aware_training._FakeQuantizedInput()
    seen(torch.tensor([-1.0, 2.0]))
    seen(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(torch.stack([seen.low, seen.high]), torch.tensor([-0.99, 1.99]))
    seen(torch.tensor([-3.0, 1.0]))
    assert float(seen.low) == -3.0


def test_gradients_pass_as_if_nothing_were_rounded():
    values = torch.linspace(-1, 1, 11, requires_grad=True)
    quantization_aware_training._FakeQuantizedInput()(values).sum().backward()
    assert torch.equal(values.grad, torch.ones(11))
