"""Files of very many small parts are refused before Pillow reads them; ordinary ones are not."""

import struct
import zlib

import pytest
from PIL import Image

from bundle.errors import ImageUndecodable
from bundle.parts import MOST_SEGMENTS, MOST_TEXTS, too_many
from bundle.preprocessing import decode


def jpeg(front: bytes, encode) -> bytes:
    """Behind a segment that holds what looks like a scan."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + segment(0xE1, b"no \xff\xda scan") + front + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_ordinary_files_have_few_parts(small_files: dict[str, bytes]) -> None:
    assert {name: too_many(data) for name, data in small_files.items()} == dict.fromkeys(small_files, "")


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
def test_a_jpeg_of_very_many_segments_is_refused(part: bytes, encode) -> None:
    assert decode(jpeg(part * (MOST_SEGMENTS - 20), encode)).size == (64, 64)
    with pytest.raises(ImageUndecodable, match=f"more than {MOST_SEGMENTS} segments"):
        decode(jpeg(part * (MOST_SEGMENTS + 1), encode))


@pytest.mark.parametrize("kind", [b"iCCP", b"iTXt", b"zTXt"])
def test_a_png_of_very_many_compressed_texts_is_refused(kind: bytes, png, chunk) -> None:
    text = chunk(
        kind, b"x\0\1\0\0\0" + zlib.compress(b"text") if kind == b"iTXt" else b"x\0\0" + zlib.compress(b"text")
    )
    rows = [bytes(192)] * 64
    assert decode(png((64, 64), 8, 2, rows, text * MOST_TEXTS)).size == (64, 64)
    with pytest.raises(ImageUndecodable, match=f"more than {MOST_TEXTS} compressed texts and profiles"):
        decode(png((64, 64), 8, 2, rows, text * (MOST_TEXTS + 1)))


def test_texts_behind_the_pixels_count_too(png, chunk) -> None:
    data, end = png((64, 64), 8, 2, [bytes(192)] * 64), chunk(b"IEND", b"")
    texts = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"text")) * (MOST_TEXTS + 1)
    with pytest.raises(ImageUndecodable, match="compressed texts"):
        decode(data[: -len(end)] + texts + end)


@pytest.mark.parametrize("start", [b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_a_file_that_ends_at_once_has_few_parts(start: bytes) -> None:
    assert too_many(start) == ""
