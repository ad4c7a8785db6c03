"""Which format a file has, by its first bytes, and the walk through its header before anything is decoded."""

import struct
from collections.abc import Callable
from typing import NamedTuple

from bundle.errors import ImageFormatRefused, ImageUndecodable
from bundle.formats import bmp, gif, jpeg, png, tiff, webp
from bundle.formats.work import Header, Work

ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

_WALKERS: tuple[tuple[int, bytes, str, Callable[[bytes, Work], Header]], ...] = (
    (0, b"\xff\xd8\xff", "JPEG", jpeg.walk),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", png.walk),
    (8, b"WEBP", "WEBP", webp.walk),
    (0, b"GIF87a", "GIF", gif.walk),
    (0, b"GIF89a", "GIF", gif.walk),
    (0, b"II*\0", "TIFF", tiff.walk),
    (0, b"MM\0*", "TIFF", tiff.walk),
    (0, b"II+\0", "TIFF", tiff.walk),
    (0, b"MM\0+", "TIFF", tiff.walk),
    (0, b"II\0*", "TIFF", tiff.walk),  # the wrong way round, which Pillow takes as well
    (0, b"MM*\0", "TIFF", tiff.walk),
    (0, b"BM", "BMP", bmp.walk),
)
_FOREIGN = (  # what a refusal can say that it has found
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyp", "HEIC or another ISO media file"),
    (0, b"%PDF", "PDF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"<", "text or markup"),
)


class Walked(NamedTuple):
    """`seconds` is about what decoding takes of one core."""

    format_name: str
    size: tuple[int, int]
    seconds: float


def walk(data: bytes, max_pixels: int) -> Walked:
    """Raises `ImageRefused`: a foreign format, too many pixels, too long, too costly, a damaged header."""
    for offset, signature, name, walker in _WALKERS:
        if data.startswith(signature, offset):
            work = Work(max_pixels)
            try:
                header = walker(data, work)
            except (struct.error, IndexError) as exc:
                raise ImageUndecodable(name, "damaged header") from exc
            except ValueError as exc:
                raise ImageUndecodable(name, str(exc)) from exc
            return Walked(name, header.size, header.seconds + work.seconds)
    raise ImageFormatRefused(_found(data), ALLOWED_FORMATS)


def _found(data: bytes) -> str:
    if not data:
        return "empty"
    for offset, signature, name in _FOREIGN:
        if data.startswith(signature, offset):
            return name
    return "of an unknown format"
