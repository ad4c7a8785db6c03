"""Quantization-aware training: a short fine-tuning in which every convolution computes as its integer kernel will.

The forward pass rounds inputs and weights, and gradients pass through the rounding unchanged (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"). The model in float32 is
the teacher (knowledge distillation, Hinton et al. 2015), on augmented training photos.
"""

import copy
import dataclasses
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div
from torch.nn.utils import parametrize

from training.config import Recipe
from training.learning import loader
from training.learning.sampling import BatchSampler
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.networks.normalization import normalized
from training.progress import Reporter
from training.runs.context import RunContext

M = TypeVar("M", Classifier, Tensor)

_LR, _MOMENTUM, _CLIP = 1e-3, 0.9, 1.0
_EPOCHS, _MAX_STEPS = 4, 100
_BITS = 8
_FORGET = 0.01  # share of the way that a range comes back, each step, from an extreme that is not seen again


class _FakeQuantizedWeight(nn.Module):
    """A convolution's weights as int8 holds them: symmetric, with a scale for each output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        flat = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)))
        largest = 2 ** (_BITS - 1) - 1
        scale = (flat / largest).clamp(min=1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -largest, largest)


class _FakeQuantizedInput(nn.Module):
    """A layer's input as uint8 holds it: one scale for all, from the extremes seen in training as at calibration."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(math.nan))
        self.register_buffer("high", torch.tensor(math.nan))

    def forward(self, values: Tensor) -> Tensor:
        if self.training or self.low.isnan():
            self._follow(values.detach())
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        largest = 2**_BITS - 1
        scale = ((high - low) / largest).clamp(min=1e-12)
        zero = (-low / scale).round().clamp(0, largest).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, largest)

    def _follow(self, values: Tensor) -> None:
        low, high = torch.aminmax(values)
        self.low.copy_(torch.fmin(low, self.low + _FORGET * (low - self.low)))
        self.high.copy_(torch.fmax(high, self.high + _FORGET * (high - self.high)))


def fake_quantized(model: Classifier) -> Classifier:
    """A folded copy whose convolutions round inputs and weights; the head stays in float32, as in the int8 graph."""
    student = folded(model)
    convolutions = [part for part in student.features.modules() if isinstance(part, nn.Conv2d)]
    for index, convolution in enumerate(convolutions):
        parametrize.register_parametrization(convolution, "weight", _FakeQuantizedWeight())
        if index > 0:  # the first one sees the photo's own bytes
            convolution.add_module("range", _FakeQuantizedInput())
            convolution.register_forward_pre_hook(_round_input)
    return student


def without_fake_quantization(student: Classifier) -> Classifier:
    """The trained network with its weights rounded, and without the layers that simulate the rounding."""
    plain = copy.deepcopy(student)
    for part in list(plain.features.modules()):
        if isinstance(part, nn.Conv2d):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
            part._forward_pre_hooks.clear()
            if hasattr(part, "range"):
                del part.range
    return plain.eval()


def fine_tuned(model: Classifier, context: RunContext, recipe: Recipe, reporter: Reporter) -> Classifier:
    """A copy of `model`, fine-tuned for a few epochs so that it answers in eight bits as `model` does in float32."""
    photos = context.photos("train")
    plan = dataclasses.replace(recipe, epochs=_EPOCHS, balance="none")
    sampler = BatchSampler(len(photos), plan)
    steps = min(len(sampler), _MAX_STEPS)
    views = loader.Views(context.root, photos, context.split.targets(photos), plan, context.stored)
    teacher, student = _channels_last(folded(model)).eval(), _channels_last(fake_quantized(model))
    optimizer = torch.optim.SGD(student.parameters(), _LR, momentum=_MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches = loader.loader(views, sampler, context.parallelism.threads, context.device)
    for _, (pixels, _) in zip(reporter.track(range(steps), "Training in eight bits", steps), batches, strict=False):
        student.train()
        optimizer.zero_grad()
        _difference(student, teacher, _channels_last(normalized(pixels.to(context.device)))).backward()  # type: ignore[no-untyped-call]  # as in torch
        nn.utils.clip_grad_norm_(student.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
    return without_fake_quantization(student)


def _channels_last(it: M) -> M:
    """A network or its inputs in the order of memory in which a CPU convolves fastest."""
    return it.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]  # not in the stub


def _difference(student: nn.Module, teacher: nn.Module, inputs: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the answers, in nats a photo."""
    with torch.no_grad():
        wanted = teacher(inputs).log_softmax(1)
    return kl_div(student(inputs).log_softmax(1), wanted, reduction="batchmean", log_target=True)


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (layer.get_submodule("range")(inputs[0]),)
