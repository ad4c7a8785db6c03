"""From encoded bytes to the uint8 pixels that the model sees: one implementation, for training and service alike.

On a plain RGB picture the result equals torchvision's `Resize(resize)` → `CenterCrop(crop)` on a PIL image, bit for
bit. What Pillow alone gets wrong or leaves open (orientation, transparency, 16-bit grey, CMYK) has one policy here.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError

from bundle import resample
from bundle.errors import (
    ImageFormatRefused,
    ImageModeRefused,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageUndecodable,
)

Pixels = npt.NDArray[np.uint8]

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_GREY16_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
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
_ORIENTATIONS = {  # EXIF tag 0x0112 (CIPA DC-008, 4.6.4 A): how to turn the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
# A long thin picture grows by its aspect ratio squared when its short side is scaled up; past this area only the
# crop is computed. 2**24 pixels are 64 MiB in Pillow and an aspect ratio of 1:256 at the default size.
_LARGEST_WHOLE_RESIZE = 2**24

# Pillow's own guard warns at one number of pixels and raises at another; `Limits.max_pixels` is the only one here.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Limits:
    """What is refused before any pixel is decoded."""

    max_bytes: int = 20 * 10**6
    max_pixels: int = 50 * 10**6


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
            raise ValueError(f"expected 0 < crop <= resize <= 4096, got crop {self.crop} and resize {self.resize}")

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
    image = _open(data)
    if image.width * image.height > limits.max_pixels:
        raise ImageTooManyPixels(image.width, image.height, limits.max_pixels)
    if image.mode not in _PLAIN_MODES | _GREY16_MODES:
        raise ImageModeRefused(image.mode)
    _refuse_missing_end(data, image.format)
    try:
        image.load()
        return _to_rgb(_upright(_true_ink(image)))
    except Exception as exc:  # decoders raise almost anything on damaged data
        raise ImageUndecodable(image.format or "image", _reason(exc)) from exc


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
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


def _refuse_missing_end(data: bytes, format_name: str | None) -> None:
    """Pillow is content with PNG and GIF files that break off between the last pixel and the end mark."""
    if format_name == "PNG" and data.rfind(b"IEND\xae\x42\x60\x82") < 0:
        raise ImageUndecodable("PNG", "truncated: no IEND chunk")
    if format_name == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        raise ImageUndecodable("GIF", "truncated: no trailer")


def _true_ink(image: Image.Image) -> Image.Image:
    """Pillow inverts every CMYK JPEG, but only files with Adobe's APP14 marker store their ink inverted."""
    if image.mode == "CMYK" and image.format in {"JPEG", "MPO"} and "adobe" not in image.info:
        return ImageChops.invert(image)
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block names no orientation; the picture itself is whole
        return image
    turn = _ORIENTATIONS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _GREY16_MODES:
        return _grey16_to_rgb(image)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _grey16_to_rgb(image: Image.Image) -> Image.Image:
    """Scale by 1/257, rounded: 65535 becomes 255. Pillow's own conversion has changed between releases."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey.convert("RGB")
    grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return _on_white(grey.convert("RGBA"))


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
