"""Checks of an encoded file before Pillow decodes it: parts, scans, tiles and ends that Pillow takes as they come.

20 MB of the shortest parts or scans keep a core busy for minutes or hours. Ordinary files have a handful.
"""

import struct
from collections.abc import Iterator

MAX_SEGMENTS, MAX_TEXTS = 1000, 100
_MAX_SCANS, _MAX_SCANNED = 500, 2 * 10**9  # scans, and pixels that all scans together may cover; progressive: about ten

_SCAN, _FILL = 0xDA, 0xFF
_WITHOUT_LENGTH = frozenset({0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE), 0xFF})
_COMPRESSED = frozenset({b"iCCP", b"iTXt", b"zTXt"})

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF 6.0, section 15
_NUMBERS = {3: "H", 4: "I"}  # the types that TIFF 6.0 allows for them: SHORT, LONG


def too_many_parts(data: bytes) -> str:
    """What a JPEG or PNG has too many of, as 'more than 1000 segments'; '' for an ordinary file.

    Pillow joins the EXIF segments of a JPEG, each with all before it, and unpacks up to a megabyte of every compressed
    text or profile of a PNG.
    """
    if data.startswith(b"\xff\xd8") and _segments(data) > MAX_SEGMENTS:
        return f"more than {MAX_SEGMENTS} segments"
    if data.startswith(b"\x89PNG") and _texts(data) > MAX_TEXTS:
        return f"more than {MAX_TEXTS} compressed texts and profiles"
    return ""


def too_many_scans(data: bytes, pixels: int) -> str:
    """The same for the scans of a JPEG of so many pixels: every scan covers the whole image."""
    limit = min(_MAX_SCANS, _MAX_SCANNED // pixels)
    return f"more than {limit} scans" if data.count(b"\xff\xda") > limit else ""


def missing_end(data: bytes, format_name: str | None) -> str:
    """What a PNG or GIF lacks that breaks off between its last pixel and its end, which Pillow accepts; else ''."""
    if format_name == "PNG" and data.rfind(b"IEND\xae\x42\x60\x82") < 0:
        return "truncated: no IEND chunk"
    if format_name == "GIF" and not data.rstrip(b"\x00").endswith(b";"):
        return "truncated: no trailer"
    return ""


def tile_size(data: bytes) -> tuple[int, int]:
    """Width and height of the tiles of a TIFF's first page, (0, 0) where it has strips.

    libtiff takes memory for a whole tile however small the image is, and Pillow hides the size where its number type is
    unusual. Raises `ValueError` where the directory is cut off or a tile size is no single SHORT or LONG.
    """
    order = "<" if data.startswith(b"II") else ">"
    sizes = {_TILE_WIDTH: 0, _TILE_LENGTH: 0}
    try:
        for tag, kind, count, value in _directory(data, order):
            if tag not in sizes:
                continue
            if kind not in _NUMBERS or count != 1:
                raise ValueError(f"tile size of type {kind}, {count} times")
            sizes[tag] = max(sizes[tag], *struct.unpack_from(order + _NUMBERS[kind], value))
    except struct.error as exc:
        raise ValueError("cut off inside its directory") from exc
    return sizes[_TILE_WIDTH], sizes[_TILE_LENGTH]


def _segments(data: bytes) -> int:
    """Of a JPEG before its first scan; fill bytes count too, as Pillow reads them one at a time."""
    position, found = 2, 0
    while found <= MAX_SEGMENTS:
        position = data.find(b"\xff", position)  # Pillow skips everything else
        if position < 0 or position + 1 >= len(data) or data[position + 1] == _SCAN:
            return found
        found += 1
        marker = data[position + 1]
        position += 1 if marker == _FILL else 2
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2]))
    return found


def _texts(data: bytes) -> int:
    """Compressed texts and profiles, before and behind the pixels of a PNG."""
    position, found = 8, 0
    while position + 8 <= len(data) and found <= MAX_TEXTS:
        found += data[position + 4 : position + 8] in _COMPRESSED
        position += 12 + int.from_bytes(data[position : position + 4])
    return found


def _directory(data: bytes, order: str) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, count and value field of each entry (TIFF 6.0, section 2; BigTIFF has wider fields)."""
    big = struct.unpack_from(order + "H", data, 2) == (43,)
    position, length, entry = (8, "Q", "HHQ8s") if big else (4, "H", "HHI4s")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, position)
    (entries,) = struct.unpack_from(order + length, data, start)
    start += struct.calcsize(order + length)
    for index in range(entries):
        yield struct.unpack_from(order + entry, data, start + index * struct.calcsize(order + entry))
