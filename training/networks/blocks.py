"""torchvision's networks as one sequence of blocks each, for truncation and for a learning rate by block.

All take the published classifier, with the weights that it has by then, and use its own modules.
"""

from typing import Any

from torch import nn


def flat(network: Any) -> nn.Sequential:
    """`network.features` with stages, where there are any, opened into their blocks: stem, blocks, last convolution."""
    parts: list[nn.Module] = []
    for part in network.features:
        parts.extend(part if type(part) is nn.Sequential else [part])
    return nn.Sequential(*parts)


def of_resnet(network: Any) -> nn.Sequential:
    """Stem, then the residual blocks."""
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return nn.Sequential(stem, *network.layer1, *network.layer2, *network.layer3, *network.layer4)


def of_convnext(network: Any) -> nn.Sequential:
    """Stem, then the blocks; one that follows a halving of the map includes it, the last one the last norm.

    That norm is published after the mean, as the first layer of the classifier. Here it stands before the mean, at each
    place of the map, so that the head remains linear on pooled features.
    """
    stem, first, *others = network.features
    parts: list[nn.Module] = [stem, *first]
    for halving, (block, *rest) in zip(others[::2], others[1::2], strict=True):
        parts += [nn.Sequential(*halving, block), *rest]
    last = nn.Sequential(parts.pop(), network.classifier[0])
    return nn.Sequential(*parts, last)


def by_convolution(network: Any) -> nn.Sequential:
    """A block is a convolution with what follows it: activation, and pooling where there is some."""
    parts: list[list[nn.Module]] = []
    for part in network.features:
        if isinstance(part, nn.Conv2d):
            parts.append([])
        parts[-1].append(part)
    return nn.Sequential(*(nn.Sequential(*block) for block in parts))


def as_built(network: nn.Sequential) -> nn.Sequential:
    """A network of our own, which is nothing but its blocks."""
    return network
