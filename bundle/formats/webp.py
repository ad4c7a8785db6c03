"""WebP (RFC 9649): the canvas, and chunks. libwebp takes memory for the canvas when it opens the file."""

import struct

from bundle.formats.directory import add_exif
from bundle.formats.work import Header, Work

_SECONDS_A_CHUNK, _BYTES_A_CHUNK = 10e-6, 100
_SECONDS_A_PIXEL, _SECONDS_A_BYTE = 30e-9, 4e-8
# Each group of a lossless image's prefix codes has tables of its own; a group takes at least 20 bits of the file, and
# four by four pixels.
_SECONDS_A_GROUP, _GROUPS, _BITS_A_GROUP, _PIXELS_A_GROUP = 5e-6, 2**16, 20, 16
_CODED_LOSSLESS = frozenset({b"VP8L", b"ALPH"})


def walk(data: bytes, work: Work) -> Header:
    """Raises `struct.error` or `ValueError` where the header is damaged, `ImageTooCostly`."""
    size = _canvas(data)
    work.check_size(size)
    lossless = 0  # bytes
    position, chunks = 12, 0
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        chunks += 1
        if not chunks % 1000:
            work.add("chunks", 1000 * _SECONDS_A_CHUNK, 1000 * _BYTES_A_CHUNK)
        if kind == b"EXIF":
            add_exif(data[position + 8 : position + 8 + length], work)
        if kind == b"ANMF":  # a frame is a chunk, 16 bytes behind
            kind = data[position + 24 : position + 28]
        if kind in _CODED_LOSSLESS:
            lossless = max(lossless, min(length, len(data)))
        position += 8 + length + length % 2
    work.add("chunks", chunks % 1000 * _SECONDS_A_CHUNK)
    pixels = size[0] * size[1]
    groups = min(_GROUPS, pixels // _PIXELS_A_GROUP, lossless * 8 // _BITS_A_GROUP)
    return Header(size, pixels * _SECONDS_A_PIXEL + len(data) * _SECONDS_A_BYTE + groups * _SECONDS_A_GROUP)


def _canvas(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if not data.startswith(b"RIFF"):
        raise ValueError("damaged header")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise ValueError("damaged header")
