"""Two small networks with random weights: baselines for the pretrained ones.

Their dense layers are written as convolutions, which are the same function; so export, evidence maps and truncation
treat them like every other network. Dropout is the classifier's own: to drop a unit after the mean over the map is to
drop it at each place before.
"""

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

_DENSE = 500  # units
_SHRUNKEN = 32  # px


def small_cnn() -> nn.Sequential:
    """Three stages of convolution and pooling, then a dense layer at each place of the last map.

    float32 [N, 3, H, W] to [N, 500, H // 8, W // 8].
    """
    dense = nn.Sequential(nn.Conv2d(128, _DENSE, 1), nn.ReLU())
    return nn.Sequential(_stage(3, 32), _stage(32, 64), _stage(64, 128), dense)


def mlp() -> nn.Sequential:
    """Two dense layers on the photo shrunken to 32 × 32; float32 [N, 3, H, W] to [N, 500, 1, 1].

    A dense layer on all of a photo is a convolution with a kernel of the photo's size.
    """
    first = nn.Sequential(Shrink(_SHRUNKEN), nn.Conv2d(3, _DENSE, _SHRUNKEN), nn.ReLU())
    return nn.Sequential(first, nn.Sequential(nn.Conv2d(_DENSE, _DENSE, 1), nn.ReLU()))


class Shrink(nn.Module):
    """Means over a grid of `side` × `side` parts of the photo, whatever its size."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self._side = side

    def forward(self, inputs: Tensor) -> Tensor:
        return adaptive_avg_pool2d(inputs, self._side)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
