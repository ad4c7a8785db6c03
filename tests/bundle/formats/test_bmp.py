"""BMP: run-length coded pixels that Pillow unpacks one by one."""

import struct

import pytest

from bundle.errors import ImageTooCostly
from bundle.preprocessing import decode, examine


def run_length(size: tuple[int, int], compression: int, body: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, 8 if compression == 1 else 4, compression, 0, 0, 0, 0, 0)
    offset = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, offset) + head + bytes(range(256)) * 4 + body


def test_a_gap_of_many_pixels_is_refused() -> None:
    assert decode(run_length((300, 200), 1, b"\1\1\0\0" * 200)).size == (300, 200)
    with pytest.raises(ImageTooCostly, match="run-length"):
        examine(run_length((7000, 7000), 1, b"\1\1\0\0" * 7000))


@pytest.mark.parametrize("compression", [1, 2])
def test_very_many_runs_are_refused(compression: int) -> None:
    with pytest.raises(ImageTooCostly, match="run-length"):
        examine(run_length((64, 64), compression, b"\0\2\0\0" * 10**6))
