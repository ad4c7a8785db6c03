"""Depthwise convolutions of stride 2 whose gradient is quick on a CPU.

oneDNN has no optimised kernel for the input gradient of a strided depthwise convolution: its reference one took a
third of a training step of MobileNetV2 here, though these layers are 4 of 53. The same gradient is a convolution of
stride 1, for which there is a kernel: of the output's gradient with zeros spread between its values, by the turned
filter (Dumoulin & Visin 2016, A guide to convolution arithmetic, section 4.6).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_weight


class StridedDepthwise(nn.Conv2d):
    """The convolution that it is made of, with the same parameters and answers."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002  # as in torch
        needed = self.training and torch.is_grad_enabled() and input.requires_grad
        if not needed or input.device.type != "cpu":
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]  # as in torch
        if torch.is_autocast_enabled("cpu"):  # which knows torch's own functions only
            arithmetic = torch.get_autocast_dtype("cpu")
            input, weight = input.to(arithmetic), weight.to(arithmetic)  # noqa: A001
        found: Tensor = _Convolution.apply(input, weight, self.stride[0])  # type: ignore[no-untyped-call]  # as in torch
        return found if bias is None else found + bias.to(found.dtype).view(-1, 1, 1)


def quicken(network: nn.Module) -> None:
    """Turn the strided depthwise convolutions of `network` into `StridedDepthwise`, in place."""
    for part in network.modules():
        if type(part) is nn.Conv2d and _fits(part):
            part.__class__ = StridedDepthwise


def _fits(part: nn.Conv2d) -> bool:
    """One odd square filter a channel, padded by half its width, moved by more than one pixel."""
    side = part.kernel_size[0]
    return (
        part.groups == part.in_channels == part.out_channels > 1
        and part.padding_mode == "zeros"
        and part.kernel_size == (side, side)
        and part.padding == (side // 2, side // 2)
        and side % 2 == 1
        and part.dilation == (1, 1)
        and part.stride[0] == part.stride[1] > 1
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride = stride
        return conv2d(maps, weight, None, stride, weight.shape[-1] // 2, groups=weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        maps, weight = ctx.saved_tensors
        groups, padding, stride = weight.shape[0], weight.shape[-1] // 2, ctx.stride
        spread = torch.zeros_like(maps)
        spread[:, :, ::stride, ::stride] = gradient
        of_maps = conv2d(spread, weight.flip(2, 3), None, 1, padding, groups=groups)
        if not ctx.needs_input_grad[1]:
            return of_maps, None, None
        of_weight = conv2d_weight(maps, weight.shape, gradient, stride, padding, groups=groups)  # type: ignore[no-untyped-call]
        return of_maps, of_weight, None
