"""The tile size that a TIFF declares, read before libtiff takes memory for a tile.

Pillow hides it where its number type is unusual, so the file's first directory is read here (TIFF 6.0, sections 2 and
15; BigTIFF has wider fields).
"""

import struct
from collections.abc import Iterator

_WIDTH, _HEIGHT = 322, 323  # TileWidth, TileLength
_NUMBERS = {3: "H", 4: "I"}  # the types that TIFF 6.0 allows for them: SHORT, LONG


def tile_size(data: bytes) -> tuple[int, int]:
    """Width and height of the first page's tiles, (0, 0) where it has strips.

    Raises `ValueError` where the directory is cut off or a tile size is no single SHORT or LONG.
    """
    order = "<" if data.startswith(b"II") else ">"
    sizes = {_WIDTH: 0, _HEIGHT: 0}
    try:
        for tag, kind, count, value in _directory(data, order):
            if tag not in sizes:
                continue
            if kind not in _NUMBERS or count != 1:
                raise ValueError(f"tile size of type {kind}, {count} times")
            sizes[tag] = max(sizes[tag], *struct.unpack_from(order + _NUMBERS[kind], value))
    except struct.error as exc:
        raise ValueError("cut off inside its directory") from exc
    return sizes[_WIDTH], sizes[_HEIGHT]


def _directory(data: bytes, order: str) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, count and value field of each entry."""
    big = struct.unpack_from(order + "H", data, 2) == (43,)
    position, length, entry = (8, "Q", "HHQ8s") if big else (4, "H", "HHI4s")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, position)
    (entries,) = struct.unpack_from(order + length, data, start)
    start += struct.calcsize(order + length)
    for index in range(entries):
        yield struct.unpack_from(order + entry, data, start + index * struct.calcsize(order + entry))
