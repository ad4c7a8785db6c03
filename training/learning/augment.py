"""What training does to a photo that answering does not: random crop, flip and colour.

Each view depends on (seed, epoch, photo) alone, so that a resumed training sees exactly what an uninterrupted one sees.
"""

import hashlib
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from training.config import Recipe

# Of the ImageNet training photos, per channel and for values from 0 to 1: what the pretrained weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def train_transform(recipe: Recipe) -> v2.Compose:
    """RGB picture of any size to uint8 [3, train_size, train_size]; draws from torch's global generator."""
    jitter = recipe.color_jitter
    color = v2.TrivialAugmentWide() if recipe.trivial_augment else v2.ColorJitter(jitter, jitter, jitter, jitter / 4)
    return v2.Compose(
        [
            v2.RandomResizedCrop(recipe.train_size, scale=(recipe.min_scale, 1.0)),
            v2.RandomHorizontalFlip(),
            color,
            v2.PILToTensor(),
        ]
    )


def augmented(transform: v2.Compose, image: Image.Image, key: Sequence[int]) -> Tensor:
    """The view of `image` that belongs to `key`, whatever was drawn before; leaves torch's random state as it was."""
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))  # torch.manual_seed would reseed CUDA too
    try:
        view: Tensor = transform(image)
    finally:
        torch.set_rng_state(before)
    return view


def normalized(pixels: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] to float32 of mean 0 and deviation 1 over ImageNet, channels last in memory."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1)
    return ((pixels.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
