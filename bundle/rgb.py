"""From an image as Pillow decodes it to upright, opaque, 8-bit RGB.

Orientation, transparency, 16-bit grey, negatives and CMYK have a function each, which says what Pillow does.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops
from PIL.TiffImagePlugin import TiffImageFile

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_GREY16_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
MODES = _PLAIN_MODES | _GREY16_MODES
"""Pixel types that have a policy; 32-bit integers and floats have no agreed range, so they have none."""
_ORIENTATIONS = {  # EXIF tag 0x0112 (CIPA DC-008, 4.6.4 A): how to turn the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_BAND = 2**20  # pixels
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0


def upright_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """The loaded image of one of `MODES`, and the file it was read from, to mode RGB."""
    _scale_transparency(image, data)
    return _to_rgb(_upright(_true_values(image)))


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Pillow turns grey of 2 and 4 bits and RGB of 16 into 8 bits, but leaves the colour named by `tRNS` as it was."""
    transparent = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in {"L", "RGB"} or transparent is None or data[12:16] != b"IHDR":
        return
    bits = data[24]
    if image.mode == "L":
        image.info["transparency"] = _to_8_bits(transparent, bits)
    else:
        image.info["transparency"] = tuple(_to_8_bits(value, bits) for value in transparent)


def _to_8_bits(value: int, bits: int) -> int:
    top = (1 << bits) - 1
    return value >> 8 if bits == 16 else (value & top) * 255 // top


def _true_values(image: Image.Image) -> Image.Image:
    """Pillow inverts every CMYK JPEG, but only files with Adobe's APP14 marker store their ink inverted; it leaves
    12-bit grey in the lower part of 16 bits, and 16-bit TIFF negatives as they are.
    """
    if image.mode == "CMYK" and image.format in {"JPEG", "MPO"} and "adobe" not in image.info:
        return ImageChops.invert(image)
    if not isinstance(image, TiffImageFile) or image.mode not in _GREY16_MODES:
        return image
    values = np.asarray(image)
    if image.tag_v2[_TIFF_BITS_PER_SAMPLE] == (12,):
        values = values << 4 | values >> 8
    if image.tag_v2[_TIFF_PHOTOMETRIC] == _TIFF_WHITE_IS_ZERO:
        values = 65535 - values
    true = Image.fromarray(values)
    true.info = image.info
    return true


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block names no orientation; the image itself is whole
        return image
    turn = _ORIENTATIONS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _GREY16_MODES:
        return _in_bands(image, _grey16_to_rgb)
    if image.has_transparency_data:
        return _in_bands(image, lambda band: _on_white(band.convert("RGBA")))
    return image.convert("RGB")


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert to RGB a few rows at a time: copies of a whole large image would take gigabytes."""
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        return convert(image)
    converted = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted.paste(convert(band), (0, top))
    return converted


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
