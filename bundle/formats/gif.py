"""GIF89a: what stands before the first image, and that image. Pillow reads it block by block in Python."""

import re
import struct

from bundle.formats.work import Header, Work

_SECONDS_A_BLOCK, _BYTES_A_BLOCK = 1.5e-6, 320
_SECONDS_A_PIXEL, _SECONDS_A_BYTE = 10e-9, 1.2e-8
_EXTENSION, _IMAGE = 0x21, 0x2C
_KNOWN = re.compile(rb"[!,;]")
_COMMENT, _APPLICATION, _LOOPS = 0xFE, 0xFF, len(b"NETSCAPE2.0")


def walk(data: bytes, work: Work) -> Header:
    """Raises `IndexError` or `ValueError` where the file breaks off or has no image, `ImageRefused`."""
    width, height, flags = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), data[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[position] != _IMAGE:
        if data[position] == _EXTENSION:
            position = _behind_extension(data, position, work)
            continue
        known = _KNOWN.search(data, position)  # Pillow skips everything else
        if known is None or known[0] == b";":
            raise ValueError("no image")
        work.add("bytes between its blocks", (known.start() - position) * _SECONDS_A_BLOCK)
        position = known.start()
    left, top, across, down = struct.unpack_from("<HHHH", data, position + 1)
    size = max(width, left + across), max(height, top + down)
    work.check_size(size)
    if not data.rstrip(b"\0").endswith(b";"):
        raise ValueError("truncated: no trailer")
    return Header(size, size[0] * size[1] * _SECONDS_A_PIXEL + len(data) * _SECONDS_A_BYTE)


def _behind_extension(data: bytes, position: int, work: Work) -> int:
    """Where Pillow reads on: it takes an extension without a block for longer than it is, and so must the walk."""
    label, position = data[position + 1], position + 2
    length = data[position]
    if label != _COMMENT:
        loops = label == _APPLICATION and data.startswith(b"NETSCAPE2.0", position + 1) and length >= _LOOPS
        position += 1 + length
        if loops:
            position += 1 + data[position]
    return _behind_blocks(data, position, work)


def _behind_blocks(data: bytes, position: int, work: Work) -> int:
    blocks = 0
    while length := data[position]:
        position += 1 + length
        blocks += 1
        if not blocks % 1000:
            work.add("blocks before its image", 1000 * _SECONDS_A_BLOCK, 1000 * _BYTES_A_BLOCK)
    work.add("extensions before its image", (2 + blocks % 1000) * _SECONDS_A_BLOCK, blocks % 1000 * _BYTES_A_BLOCK)
    return position + 1
