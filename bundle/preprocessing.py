"""From encoded bytes to the uint8 pixels that the model sees: one implementation, for training and service alike.

On a plain RGB picture the result equals torchvision's `Resize(resize)` → `CenterCrop(crop)` on a PIL image, bit for
bit. What Pillow alone gets wrong or leaves open has one policy: what is refused here, what is corrected in `rgb`.
"""

import io
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from bundle import parts, resample, rgb, tiff
from bundle.errors import ImageFormatRefused, ImageModeRefused, ImageTooManyBytes, ImageTooManyPixels, ImageUndecodable

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
# A long thin picture grows by its aspect ratio squared when its short side is scaled up; past this area only the
# crop is computed. 2**24 pixels are 64 MiB in Pillow and an aspect ratio of 1:256 at the default size.
_LARGEST_WHOLE_RESIZE = 2**24
# Every scan of a JPEG runs over the whole picture, and a hundred bytes are a scan: 20 MB of them take hours. Ordinary
# progressive files have about ten.
_MOST_SCANS, _MOST_SCANNED = 500, 2 * 10**9  # scans, and pixels that all scans together may run over

# The second line behind `Limits.max_pixels`, which is checked when Pillow has opened the file: while opening, Pillow
# already takes memory for a GIF's disposal and a WebP's canvas, and does so only below twice this number.
_PILLOW_GUARD = 2**27
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
    """The recorded recipe: sizes in pixels, and the policies that this version of the code knows.

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
        """Decode, turn, flatten, resize and crop one encoded picture.

        Returns uint8 [crop, crop, 3], RGB. Raises `ImageRefused`.
        """
        return self.resize_and_crop(decode(data, limits))

    def resize_and_crop(self, image: Image.Image) -> Pixels:
        """An RGB image to uint8 [crop, crop, 3], as torchvision's `Resize` and `CenterCrop` do it."""
        width, height = self.resized(*image.size)
        left, top = round((width - self.crop) / 2.0), round((height - self.crop) / 2.0)
        box = (left, top, left + self.crop, top + self.crop)
        if width * height > _LARGEST_WHOLE_RESIZE:
            return resample.resize_box(np.asarray(image), (width, height), box)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR).crop(box))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Size (width, height) after resizing the short side, in torchvision's rounding."""
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """One encoded picture to an upright, opaque 8-bit RGB image of its own size.

    Raises `ImageRefused`: too many bytes or pixels, a format or pixel type that is not allowed, damaged data.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooManyBytes(len(data), limits.max_bytes)
    _refuse_too_many_parts(data)
    image = _open(data, limits)
    _refuse_too_many_pixels(image.size, limits)
    if image.mode not in rgb.MODES:
        raise ImageModeRefused(image.mode)
    _refuse_missing_end(data, image.format)
    _refuse_hidden_work(data, image, limits)
    try:
        image.load()
        return rgb.upright_rgb(image, data)
    except Exception as exc:  # decoders raise almost anything on damaged data
        raise ImageUndecodable(image.format or "image", _reason(exc)) from exc


def _open(data: bytes, limits: Limits) -> Image.Image:
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


def _refuse_too_many_pixels(size: tuple[int, int], limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise ImageTooManyPixels(size[0] * size[1], limits.max_pixels, size)


def _refuse_too_many_parts(data: bytes) -> None:
    """They cost before the file is even open."""
    if reason := parts.too_many(data):
        raise ImageUndecodable(_found(data), reason)


def _refuse_hidden_work(data: bytes, image: Image.Image, limits: Limits) -> None:
    """A TIFF's tiles are decoded whole however small the picture, and every scan of a JPEG is."""
    if image.format == "TIFF":
        try:
            tile = tiff.tile_size(data)
        except ValueError as exc:
            raise ImageUndecodable("TIFF", str(exc)) from exc
        _refuse_too_many_pixels(tile, limits)
    most = min(_MOST_SCANS, _MOST_SCANNED // (image.width * image.height))
    if image.format in {"JPEG", "MPO"} and _scans(data, most) > most:
        raise ImageUndecodable("JPEG", f"more than {most} scans")


def _scans(data: bytes, most: int) -> int:
    """At most so many. A single byte is counted fifty times faster than the marker, and suffices for most photos."""
    few = data.count(b"\xda")
    return few if few <= most else data.count(b"\xff\xda")


def _refuse_missing_end(data: bytes, format_name: str | None) -> None:
    """Pillow is content with PNG and GIF files that break off between the last pixel and the end mark."""
    if format_name == "PNG" and data.rfind(b"IEND\xae\x42\x60\x82") < 0:
        raise ImageUndecodable("PNG", "truncated: no IEND chunk")
    if format_name == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        raise ImageUndecodable("GIF", "truncated: no trailer")
