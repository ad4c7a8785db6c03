"""From encoded bytes to the uint8 pixels that the model sees: one implementation, for training and service alike.

On a plain RGB image the result equals torchvision's `Resize(resize)` → `CenterCrop(crop)` on a PIL image, bit for bit.
Where Pillow is wrong or leaves a choice there is one policy: this module says what is refused, `rgb` what is corrected.
"""

import io
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from bundle import file_checks, rgb
from bundle.errors import (
    ImageAspectRatioRefused,
    ImageFormatRefused,
    ImageModeRefused,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageUndecodable,
)

Pixels = npt.NDArray[np.uint8]

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_SIGNATURES = (  # the first bytes by which a refusal can say what was found
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIC or another ISO media file"),
    (0, b"%PDF", "PDF"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"<", "text or markup"),
)
# The central square is at most a hundredth of a longer image, and resizing its short side would take gigabytes.
MAX_ASPECT_RATIO = 100

# The second line behind `Limits.max_pixels`, which is checked when Pillow has opened the file: while opening, Pillow
# already takes memory for a GIF's disposal and a WebP's canvas, and does so only below twice this number.
_PILLOW_GUARD = 2**27
_SECONDS, _SECONDS_A_PIXEL = 5e-4, 4e-8
Image.MAX_IMAGE_PIXELS = _PILLOW_GUARD


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


@dataclass(frozen=True)
class Examined:
    """An encoded image that may be decoded; `seconds` is about what that and the resizing take of one core."""

    data: bytes
    limits: Limits
    seconds: float

    def image(self) -> Image.Image:
        """Upright, opaque, 8-bit RGB, of the image's own size. Raises `ImageRefused`."""
        image = _open(self.data, self.limits)
        _refuse_opened(self.data, image, self.limits)
        try:
            image.load()
            return rgb.upright_rgb(image, self.data)
        except Exception as exc:  # decoders raise almost anything on damaged data
            raise ImageUndecodable(image.format or "image", _reason(exc)) from exc


def examine(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Examined:
    """What can be known of an encoded image before it is decoded.

    Raises `ImageRefused`: too many bytes or pixels, too long for its width, a format or pixel type that is not allowed,
    more work than its size explains.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytes(len(data), limits.max_bytes)
    if reason := file_checks.too_many_parts(data):
        raise ImageUndecodable(_found(data), reason)
    image = _open(data, limits)
    _refuse_opened(data, image, limits)
    return Examined(data, limits, _SECONDS + image.width * image.height * _SECONDS_A_PIXEL)


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """One encoded image to an upright, opaque 8-bit RGB image of its own size.

    Raises `ImageRefused`, also for damaged data.
    """
    return examine(data, limits).image()


def _refuse_opened(data: bytes, image: ImageFile.ImageFile, limits: Limits) -> None:
    _refuse_size(image.size, limits)
    if image.mode not in rgb.MODES:
        raise ImageModeRefused(image.mode)
    if reason := file_checks.missing_end(data, image.format):
        raise ImageUndecodable(image.format or "image", reason)
    _refuse_hidden_work(data, image, limits)


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageTooManyPixels(_first_number(str(exc)), limits.max_pixels) from exc
    except Exception as exc:
        found = _found(data)
        if found in ALLOWED_FORMATS:
            raise ImageUndecodable(found, _reason(exc)) from exc
        raise ImageFormatRefused(found, ALLOWED_FORMATS) from exc


def _found(data: bytes) -> str:
    if not data:
        return "empty"
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    return "of an unknown format"


def _reason(exc: Exception) -> str:
    if isinstance(exc, UnidentifiedImageError):
        return "damaged header"
    return str(exc) or type(exc).__name__


def _first_number(text: str) -> int:
    """Pillow's guard gives the number of pixels in its message alone: "Image size (400000000 pixels) exceeds …"."""
    number = re.search(r"\d+", text)
    return int(number[0]) if number else 2 * _PILLOW_GUARD


def _refuse_size(size: tuple[int, int], limits: Limits) -> None:
    _refuse_too_many_pixels(size, limits)
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise ImageAspectRatioRefused(size, MAX_ASPECT_RATIO)


def _refuse_too_many_pixels(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise ImageTooManyPixels(size[0] * size[1], limits.max_pixels, size)


def _refuse_hidden_work(data: bytes, image: Image.Image, limits: Limits) -> None:
    """Every tile of a TIFF is decoded whole however small the image is, and so is every scan of a JPEG."""
    if image.format == "TIFF":
        try:
            tile = file_checks.tile_size(data)
        except ValueError as exc:
            raise ImageUndecodable("TIFF", str(exc)) from exc
        _refuse_too_many_pixels(tile, limits)
    if image.format in {"JPEG", "MPO"} and (reason := file_checks.too_many_scans(data, image.width * image.height)):
        raise ImageUndecodable("JPEG", reason)
