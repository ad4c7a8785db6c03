"""GIF89a: what stands before the first image, and that image. Pillow reads it block by block in Python."""

from bundle.formats.work import Header, Work

_SECONDS_A_BLOCK, _BYTES_A_BLOCK = 1.5e-6, 320
_SECONDS_A_PIXEL, _SECONDS_A_BYTE = 16e-9, 2e-8
_EXTENSION, _IMAGE = 0x21, 0x2C


def walk(data: bytes, work: Work) -> Header:
    """Raises `IndexError` or `ValueError` where the file breaks off or has no image, `ImageTooCostly`."""
    width, height, flags = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), data[10]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[position] != _IMAGE:
        if data[position] == _EXTENSION:
            position = _skip_blocks(data, position + 2, work)
        elif data[position] == 0x3B:
            raise ValueError("no image")
        else:
            position += 1  # Pillow skips what it does not know
            work.add("bytes between its blocks", _SECONDS_A_BLOCK)
    left, top, across, down = (
        int.from_bytes(data[at : at + 2], "little") for at in range(position + 1, position + 9, 2)
    )
    size = max(width, left + across), max(height, top + down)
    work.check_size(size)
    if not data.rstrip(b"\x00").endswith(b";"):
        raise ValueError("truncated: no trailer")
    return Header(size, size[0] * size[1] * _SECONDS_A_PIXEL + len(data) * _SECONDS_A_BYTE)


def _skip_blocks(data: bytes, position: int, work: Work) -> int:
    blocks = 0
    while length := data[position]:
        position += 1 + length
        blocks += 1
        if not blocks % 1000:
            work.add("blocks before its image", 1000 * _SECONDS_A_BLOCK, 1000 * _BYTES_A_BLOCK)
    work.add("extensions before its image", (1 + blocks % 1000) * _SECONDS_A_BLOCK, _BYTES_A_BLOCK)
    return position + 1
