"""From encoded bytes to the uint8 pixels that the model sees: one implementation, for training and service alike.

On a plain RGB image the result equals torchvision's `Resize(resize)` → `CenterCrop(crop)` on a PIL image, bit for bit.
Where Pillow is wrong or leaves a choice there is one policy: this module says what is refused, `rgb` what is corrected.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from bundle import rgb
from bundle.errors import ImageModeRefused, ImageTooManyBytes, ImageUndecodable
from bundle.formats.walk import Walked, walk

Pixels = npt.NDArray[np.uint8]

# The second line behind `Limits.max_pixels`, for what the walk through a header and Pillow may understand differently.
_PILLOW_GUARD = 2**27
Image.MAX_IMAGE_PIXELS = _PILLOW_GUARD

# Of one core, for every image; for the pixels between decoding and the crop; for those of a long image's enlarged side.
_SECONDS, _SECONDS_A_PIXEL, _SECONDS_A_SQUARE = 3e-4, 4e-9, 6e-4


@dataclass(frozen=True)
class Limits:
    """What is refused before any pixel is decoded."""

    max_bytes: int = 20 * 10**6
    max_pixels: int = 50 * 10**6

    def __post_init__(self) -> None:
        if not 0 < self.max_pixels <= _PILLOW_GUARD:
            raise ValueError(f"expected 0 < max_pixels <= {_PILLOW_GUARD:,}, got {self.max_pixels:,}")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Preprocessing:
    """The recorded recipe: sizes in pixels, and the policies that this version of the code supports.

    Each policy has one value today; a manifest that asks for another is refused rather than served wrongly.
    """

    resize: int = 256  # length of the short side after resizing
    crop: int = 224  # side of the central square that the model sees
    interpolation: Literal["bilinear-antialias"] = "bilinear-antialias"
    orientation: Literal["exif"] = "exif"
    alpha: Literal["white"] = "white"
    grey16: Literal["scale"] = "scale"
    cmyk: Literal["adobe-marker-inverts"] = "adobe-marker-inverts"
    frame: Literal["first"] = "first"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize <= 4096:
            raise ValueError(f"0 < crop <= resize <= 4096, got crop {self.crop} and resize {self.resize}")

    def __call__(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Pixels:
        """Decode, turn, flatten, resize and crop one encoded image.

        Returns uint8 [crop, crop, 3], RGB. Raises `ImageRefused`.
        """
        return self.resize_and_crop(decode(data, limits))

    def resize_and_crop(self, image: Image.Image) -> Pixels:
        """An RGB image to uint8 [crop, crop, 3], as torchvision's `Resize` and `CenterCrop` do it."""
        width, height = self.resized(*image.size)
        left, top = round((width - self.crop) / 2.0), round((height - self.crop) / 2.0)
        box = (left, top, left + self.crop, top + self.crop)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR).crop(box))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Size (width, height) after resizing the short side, in torchvision's rounding."""
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize


@dataclass(frozen=True, slots=True)
class Examined:
    """An encoded image that may be decoded: nothing in its header asks for more than its pixels explain."""

    data: bytes
    walked: Walked

    @property
    def seconds(self) -> float:
        """About what decoding and resizing take of one core: at most three times as long as they do take."""
        width, height = self.walked.size
        squares = max(width, height) / min(width, height)
        return self.walked.seconds + _SECONDS + width * height * _SECONDS_A_PIXEL + squares * _SECONDS_A_SQUARE

    def image(self) -> Image.Image:
        """Upright, opaque, 8-bit RGB, of the image's own size.

        Raises `ImageModeRefused`, or `ImageUndecodable` for damaged data.
        """
        image = self._opened()
        if image.mode not in rgb.MODES:
            raise ImageModeRefused(image.mode)
        try:
            image.load()
            return rgb.upright_rgb(image, self.data)
        except Exception as exc:  # decoders raise almost anything on damaged data
            raise ImageUndecodable(self.walked.format_name, _reason(exc)) from exc

    def _opened(self) -> ImageFile.ImageFile:
        name = self.walked.format_name
        try:
            image = Image.open(io.BytesIO(self.data), formats=(name,))
        except Exception as exc:
            raise ImageUndecodable(name, _reason(exc)) from exc
        if image.size not in {self.walked.size, self.walked.size[::-1]}:  # a TIFF may lie on its side
            raise ImageUndecodable(name, f"its header can be read as {image.width}×{image.height} pixels too")
        return image


def examine(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Examined:
    """What can be known of an encoded image before it is decoded, in a small part of the time that decoding takes.

    Raises `ImageRefused`: too many bytes or pixels, too long for its width, a format that is not allowed, a damaged
    header, more work than the pixels explain.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytes(len(data), limits.max_bytes)
    return Examined(data, walk(data, limits.max_pixels))


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """One encoded image to an upright, opaque 8-bit RGB image of its own size. Raises `ImageRefused`."""
    return examine(data, limits).image()


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnidentifiedImageError):
        return "damaged header"
    return str(exc) or type(exc).__name__
