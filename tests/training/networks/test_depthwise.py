"""The quicker gradient of strided depthwise convolutions is the gradient."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from training.networks.depthwise import StridedDepthwise, quicken


def quick(plain):
    network = nn.Sequential(copy.deepcopy(plain))
    quicken(network)
    return network[0]


def gradients(convolution, maps):
    maps = maps.clone().requires_grad_()
    answer = convolution(maps)
    torch.manual_seed(1)
    answer.backward(torch.randn(answer.shape).to(answer.dtype))
    of_bias = [] if convolution.bias is None else [convolution.bias.grad]
    return answer, maps.grad, convolution.weight.grad, *of_bias


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 3)])
def test_it_is_the_same_function_with_the_same_gradients(kernel, stride, side, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, kernel, stride, kernel // 2, groups=4, bias=bias)
    fast = quick(plain)
    assert type(fast) is StridedDepthwise
    maps = torch.randn(2, 4, side, side + 1)
    for mine, theirs in zip(gradients(fast, maps), gradients(plain, maps), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_its_gradient_is_that_of_finite_differences():
    fast = quick(nn.Conv2d(3, 3, 3, 2, 1, groups=3, bias=False).double())
    maps = torch.randn(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fast, (maps,))
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(fast, {"weight": weight}, (maps,)), (fast.weight,)
    )


def test_autocast_computes_in_its_arithmetic_and_gives_gradients_in_that_of_the_weights():
    plain = nn.Conv2d(4, 4, 3, 2, 1, groups=4)
    fast = quick(plain)
    maps = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mine, theirs = gradients(fast, maps), gradients(plain, maps)
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=1e-2, rtol=2e-2)


def test_a_frozen_filter_gets_no_gradient():
    fast = quick(nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False)).requires_grad_(requires_grad=False)
    _, of_maps, of_weight = gradients(fast, torch.randn(1, 4, 8, 8))
    assert of_maps is not None
    assert of_weight is None


def test_all_strided_depthwise_layers_of_a_network_are_found_and_no_others():
    network = models.mobilenet_v2()
    before = list(network.state_dict())
    quicken(network)
    found = [part for part in network.modules() if isinstance(part, StridedDepthwise)]
    assert len(found) == 4
    assert all(part.stride == (2, 2) and part.groups == part.in_channels for part in found)
    assert list(network.state_dict()) == before


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False),
        nn.Conv2d(4, 8, 3, 2, 1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, 2, 1, bias=False),
        nn.Conv2d(4, 4, 3, 2, 0, groups=4, bias=False),
        nn.Conv2d(4, 4, 2, 2, 1, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, 2, 2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, (2, 1), 1, groups=4, bias=False),
    ],
)
def test_other_convolutions_stay_as_they_are(other):
    assert type(quick(other)) is nn.Conv2d


def test_answering_goes_the_plain_way():
    fast = quick(nn.Conv2d(4, 4, 3, 2, 1, groups=4)).eval()
    assert type(fast(torch.randn(1, 4, 8, 8, requires_grad=True)).grad_fn).__name__ == "ConvolutionBackward0"
