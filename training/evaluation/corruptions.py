"""Common corruptions: photos of lower quality, as cameras, networks and weather produce them.

After Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", at
about their first severity. Lengths are in pixels of a photo whose short side has 256, so that size does not matter.
"""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from bundle.preprocessing import Pixels, Preprocessing, decode

Random = np.random.Generator
Corrupt = Callable[[Image.Image, Random], Image.Image]

_SIDE = 256  # of the short side, to which lengths refer
_NOISE = 0.08  # deviation, for values from 0 to 1
_BLUR = 1.5  # deviation
_MOTION, _EXPOSURES = 10, 9  # length of the path, and exposures along it
_JPEG_QUALITY = 25
_LIGHT = 0.3  # share by which a photo gets brighter or darker
_CONTRAST, _COLOUR = 0.5, 0.4  # what remains
_TURN = 10  # degrees to either side
_SMALL = 128  # short side
_COVERED = 0.1  # share of the area


@dataclass(frozen=True)
class Corrupted:
    """Preprocessing, with one corruption after the decoder; the same for the same photo every time."""

    preprocessing: Preprocessing
    corruption: str  # one of CORRUPTIONS

    def __call__(self, data: bytes) -> Pixels:
        """One encoded photo to uint8 [crop, crop, 3]. Raises `ImageRefused`."""
        seed = hashlib.sha256(self.corruption.encode() + data).digest()
        random = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        return self.preprocessing.resize_and_crop(CORRUPTIONS[self.corruption](decode(data), random))


def _noise(image: Image.Image, random: Random) -> Image.Image:
    """Grain as coarse as the pixels that the model sees: finer one would vanish when the photo is resized."""
    unit = _unit(image)
    grid = math.ceil(image.height / unit), math.ceil(image.width / unit), 3
    grain = random.normal(0, 255 * _NOISE, grid)
    rows, columns = (np.arange(length) / unit for length in (image.height, image.width))
    return _image(np.asarray(image) + grain[np.ix_(rows.astype(int), columns.astype(int))])


def _blur(image: Image.Image, _: Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(_BLUR * _unit(image)))


def _motion(image: Image.Image, random: Random) -> Image.Image:
    """The mean of exposures along a straight path, its direction by chance; edges are repeated."""
    pixels, angle = np.asarray(image), random.uniform(0, math.pi)
    total = np.zeros(pixels.shape)
    for place in np.linspace(-0.5, 0.5, _EXPOSURES) * _MOTION * _unit(image):
        down, right = round(place * math.sin(angle)), round(place * math.cos(angle))
        rows = np.clip(np.arange(image.height) + down, 0, image.height - 1)
        columns = np.clip(np.arange(image.width) + right, 0, image.width - 1)
        total += pixels[np.ix_(rows, columns)]
    return _image(total / _EXPOSURES)


def _jpeg(image: Image.Image, _: Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    with Image.open(buffer) as found:
        return found.convert("RGB")


def _light(image: Image.Image, random: Random) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + random.choice((-_LIGHT, _LIGHT)))


def _contrast(image: Image.Image, _: Random) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(_CONTRAST)


def _colour(image: Image.Image, _: Random) -> Image.Image:
    return ImageEnhance.Color(image).enhance(_COLOUR)


def _turn(image: Image.Image, random: Random) -> Image.Image:
    """A crooked camera; what comes in at the corners mirrors the photo, since black would be another corruption."""
    margin = math.ceil(math.hypot(*image.size) * math.radians(_TURN) / 2)
    wide = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), "symmetric")
    turned = Image.fromarray(wide).rotate(random.uniform(-_TURN, _TURN), Image.Resampling.BILINEAR)
    return turned.crop((margin, margin, margin + image.width, margin + image.height))


def _small(image: Image.Image, _: Random) -> Image.Image:
    factor = _SMALL / min(image.size)
    size = max(round(image.width * factor), 1), max(round(image.height * factor), 1)
    if factor >= 1:
        return image
    return image.resize(size, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)


def _cover(image: Image.Image, random: Random) -> Image.Image:
    """A grey patch of the photo's own shape, somewhere."""
    width, height = (max(round(side * _COVERED**0.5), 1) for side in image.size)
    left = int(random.integers(image.width - width + 1))
    top = int(random.integers(image.height - height + 1))
    covered = image.copy()
    covered.paste((128, 128, 128), (left, top, left + width, top + height))
    return covered


CORRUPTIONS: dict[str, Corrupt] = {
    "noise": _noise,
    "blur": _blur,
    "motion blur": _motion,
    "JPEG artefacts": _jpeg,
    "brightness": _light,
    "contrast": _contrast,
    "saturation": _colour,
    "rotation": _turn,
    "low resolution": _small,
    "occlusion": _cover,
}


def _unit(image: Image.Image) -> float:
    return min(image.size) / _SIDE


def _image(values: npt.NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
