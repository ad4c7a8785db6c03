"""JPEG: segments and scans that cost more than their pixels explain; ordinary files, also with a film behind, pass."""

import random
import struct

import pytest
from PIL import Image

from bundle.errors import ImageTooCostly
from bundle.formats.jpeg import MAX_SEGMENTS
from bundle.preprocessing import decode, examine


def jpeg(front: bytes, encode) -> bytes:
    """Behind a segment that holds what looks like a scan."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + segment(0xE1, b"no \xff\xda scan") + front + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize(
    "part",
    [
        segment(0xE1, b"Exif\0\0" + bytes(10)),
        segment(0xFE, b""),
        b"\xff\xfe\0\0",
        b"\xff",
        b"\xff\xd0",
        b"\0\xff\xd0",
        b"\xff\0",
    ],
    ids=["EXIF", "comment", "no length", "fill", "restart", "junk", "escape"],
)
def test_very_many_segments_are_refused(part: bytes, encode) -> None:
    assert decode(jpeg(part * (MAX_SEGMENTS - 20), encode)).size == (64, 64)
    with pytest.raises(ImageTooCostly, match=f"more than {MAX_SEGMENTS} segments"):
        examine(jpeg(part * (MAX_SEGMENTS + 1), encode))


@pytest.mark.parametrize(
    ("part", "count", "what"),
    [
        (bytes(10**6), 6, "bytes between its segments"),
        (segment(0xDB, (b"\0" + b"\1" * 64) * 1000), 90, "tables"),
        (segment(0xC0, bytes([8, 0, 64, 0, 64, 3]) + bytes(65_000)), 90, "entries in its frames"),
        (segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5000), 90, "Photoshop resources"),
        (segment(0xE1, b"Exif\0\0" + bytes(65_000)), 300, "EXIF segments"),
    ],
    ids=["junk", "tables", "frames", "resources", "EXIF"],
)
def test_segments_that_take_long_to_read_are_refused(part: bytes, count: int, what: str, encode) -> None:
    assert examine(jpeg(part, encode)).seconds < 0.3
    with pytest.raises(ImageTooCostly, match=what):
        examine(jpeg(part * count, encode))


def test_a_film_behind_a_photo_has_no_scans(encode, scene) -> None:
    """Phones append one; among its bytes are thousands of pairs that look like a scan."""
    photo = encode(scene, "JPEG")
    film = random.Random(0).randbytes(2 * 10**6) + b"\xff\xda" * 10_000
    assert decode(photo + film).tobytes() == decode(photo).tobytes()


def test_scans_of_a_large_image_count_for_more(encode) -> None:
    data = encode(Image.new("L", (4000, 4000), 128), "JPEG", progressive=True)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    few, many = (data[:end] + data[scan:end] * count + data[end:] for count in (20, 80))
    assert examine(few).seconds > examine(data).seconds
    with pytest.raises(ImageTooCostly, match="scans"):
        examine(many)
