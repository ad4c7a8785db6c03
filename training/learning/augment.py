"""Augmentation: the random changes that training makes to photos.

Geometry comes first (crop, flip, rotation, shift), at the training size, where it costs the same for any photo. Colour
follows, then blur, then noise, which must not be blurred, and last erasing, so that erased parts stay blank. A step of
strength 0 is left out and draws nothing.

Each view depends on (seed, epoch, photo) alone, so that a resumed training sees exactly what an uninterrupted one sees.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from training.config import Recipe
from training.networks.normalization import MEAN

BLANK = tuple(round(255 * mean) for mean in MEAN)
"""RGB of what a turned photo uncovers and erasing leaves: next to 0 once normalised, so nothing to the network."""

_MIN_BLUR = 0.1  # pixels of deviation; below it no value changes


def train_transform(recipe: Recipe) -> v2.Compose:
    """RGB photo of any size to uint8 [3, train_size, train_size]; draws from torch's global generator."""
    return v2.Compose([*_geometry(recipe), *_colour(recipe), v2.PILToTensor(), *_damage(recipe)])


def augmented(transform: v2.Compose, image: Image.Image, key: Sequence[int]) -> Tensor:
    """The view of `image` that belongs to `key`, whatever was drawn before; leaves torch's random state as it was."""
    with drawn_for(key):
        view: Tensor = transform(image)
    return view


class Blur:
    """Gaussian blur of uint8 [3, H, W], of a deviation drawn from 0 to `largest` pixels; sides are over 3 × `largest`.

    One axis after the other, which gives what torchvision's kernel of two dimensions gives in far fewer steps.
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def __call__(self, pixels: Tensor) -> Tensor:
        deviation = self._largest * torch.rand(()).item()
        if deviation < _MIN_BLUR:
            return pixels
        kernel = 2 * math.ceil(3 * deviation) + 1  # pixels beyond three deviations weigh next to nothing
        blurred: Tensor = functional.gaussian_blur(pixels.float(), [kernel, 1], [deviation, deviation])
        blurred = functional.gaussian_blur(blurred, [1, kernel], [deviation, deviation])
        return blurred.round().to(torch.uint8)


class Noise:
    """Gaussian noise on uint8 [..., H, W], of a deviation drawn from 0 to `largest`, where values go from 0 to 1.

    Torchvision's own transform has one deviation for all, and cuts what it adds to uint8 towards 0, which makes weak
    noise weaker still.
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def __call__(self, pixels: Tensor) -> Tensor:
        deviation = self._largest * torch.rand(()).item()
        noisy: Tensor = functional.gaussian_noise(pixels.float() / 255, sigma=deviation)  # clipped to 0..1
        return (255 * noisy).round().to(torch.uint8)


def _geometry(recipe: Recipe) -> list[v2.Transform]:
    steps = _crop(recipe)
    if recipe.horizontal_flip > 0:
        steps.append(v2.RandomHorizontalFlip(recipe.horizontal_flip))
    if recipe.vertical_flip > 0:
        steps.append(v2.RandomVerticalFlip(recipe.vertical_flip))
    if recipe.rotation > 0 or recipe.translation > 0 or recipe.scale > 0:
        steps.append(
            v2.RandomAffine(
                recipe.rotation,
                (recipe.translation, recipe.translation) if recipe.translation > 0 else None,
                (1 - recipe.scale, 1 + recipe.scale) if recipe.scale > 0 else None,
                interpolation=InterpolationMode.BILINEAR,
                fill=BLANK,
            )
        )
    return steps


def _crop(recipe: Recipe) -> list[v2.Transform]:
    side = recipe.train_size
    if recipe.min_scale == 1:  # a random crop of everything would squash the photo into a square
        return [v2.Resize(round(side * recipe.resize / recipe.crop)), v2.CenterCrop(side)]
    return [v2.RandomResizedCrop(side, scale=(recipe.min_scale, 1.0))]


def _colour(recipe: Recipe) -> list[v2.Transform]:
    jitter = recipe.color_jitter
    if recipe.trivial_augment:
        return [v2.TrivialAugmentWide()]
    return [v2.ColorJitter(jitter, jitter, jitter, jitter / 4)] if jitter > 0 else []


def _damage(recipe: Recipe) -> list[v2.Transform | Blur | Noise]:
    steps: list[v2.Transform | Blur | Noise] = []
    if recipe.blur > 0:
        steps.append(Blur(recipe.blur))
    if recipe.noise > 0:
        steps.append(Noise(recipe.noise))
    if recipe.erasing > 0:
        steps.append(v2.RandomErasing(recipe.erasing, value=BLANK))
    return steps


@contextmanager
def drawn_for(key: Sequence[object]) -> Iterator[None]:
    """Inside, torch's global CPU generator starts from `key`. Afterwards its state is restored.

    For transforms that take no generator of their own. The generators of CUDA devices are left alone.
    """
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))  # torch.manual_seed would reseed CUDA too
    try:
        yield
    finally:
        torch.set_rng_state(before)
