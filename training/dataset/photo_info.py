"""Size, format and orientation of a photo, and whether it is grey."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from bundle.formats.walk import ALLOWED_FORMATS

_SAMPLED = 48  # points a side
_COLOURLESS = 12  # of 255; JPEG leaves such differences between the channels of a grey photo


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """`width` and `height` in pixels as the photo stands upright, `size` in bytes."""

    size: int
    width: int
    height: int
    format: str
    grey: bool  # no colour in any of 48 × 48 points
    turned: bool  # by EXIF, the stored pixels are rotated or mirrored

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    @property
    def aspect(self) -> float:
        """Long side over short side."""
        return max(self.width, self.height) / self.short_side


def photo_info(data: bytes, decoded: Image.Image) -> PhotoInfo:
    """Describe a photo that was decoded to upright RGB."""
    with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as header:  # reads no pixels
        name = header.format or "unknown"
        turned = _turned(header)
    return PhotoInfo(len(data), decoded.width, decoded.height, name, _grey(decoded), turned)


def _turned(header: Image.Image) -> bool:
    if header.format == "PNG" and "exif" not in header.info:  # getexif would decode all pixels in search of it
        return False
    try:
        return header.getexif().get(ExifTags.Base.Orientation) in range(2, 9)
    except Exception:  # a damaged EXIF block turns nothing, here as in the decoder
        return False


def _grey(photo: Image.Image) -> bool:
    points = np.asarray(photo.resize((_SAMPLED, _SAMPLED), Image.Resampling.NEAREST))
    return int(np.ptp(points, axis=2).max()) <= _COLOURLESS
