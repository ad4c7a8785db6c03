"""PNG: chunks, texts and EXIF blocks that cost more than their pixels explain."""

import struct
import zlib

import pytest

from bundle.errors import ImageTooCostly, ImageUndecodable
from bundle.formats.png import MAX_TEXTS
from bundle.preprocessing import decode, examine

ROWS = [bytes(192)] * 64
RATIONALS = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x011A, 5, 100_000, 26) + bytes(4 + 800_000)


@pytest.mark.parametrize("kind", [b"iCCP", b"iTXt", b"zTXt"])
def test_very_many_compressed_texts_are_refused(kind: bytes, png, chunk) -> None:
    text = chunk(
        kind, b"x\0\1\0\0\0" + zlib.compress(b"text") if kind == b"iTXt" else b"x\0\0" + zlib.compress(b"text")
    )
    assert decode(png((64, 64), 8, 2, ROWS, text * MAX_TEXTS)).size == (64, 64)
    with pytest.raises(ImageTooCostly, match=f"more than {MAX_TEXTS} compressed texts and profiles"):
        examine(png((64, 64), 8, 2, ROWS, text * (MAX_TEXTS + 1)))


def test_texts_behind_the_pixels_count_too(png, chunk) -> None:
    data, end = png((64, 64), 8, 2, ROWS), chunk(b"IEND", b"")
    texts = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"text")) * (MAX_TEXTS + 1)
    with pytest.raises(ImageTooCostly, match="compressed texts"):
        examine(data[: -len(end)] + texts + end)


@pytest.mark.parametrize("kind", [b"juNk", b"IDAT"])
def test_very_many_chunks_are_refused(kind: bytes, png, chunk) -> None:
    with pytest.raises(ImageTooCostly, match="chunks"):
        examine(png((64, 64), 8, 2, ROWS, chunk(kind, b"") * 200_000))


@pytest.mark.parametrize("kind", [b"IDAT", b"DDAT", b"fdAT"])
def test_packed_data_that_no_pixel_needs_is_refused(kind: bytes, png, chunk) -> None:
    """Pillow goes on with what any of them holds."""
    data, end = png((64, 64), 8, 2, ROWS), chunk(b"IEND", b"")
    with pytest.raises(ImageTooCostly, match="packed data"):
        examine(data[: -len(end)] + chunk(kind, bytes(8 * 10**6)) + end)


@pytest.mark.parametrize("end", [b"", b"\0\0\0"])
def test_a_file_that_ends_at_once_is_damaged(end: bytes) -> None:
    with pytest.raises(ImageUndecodable):
        examine(b"\x89PNG\r\n\x1a\n" + end)


def raw_profile(block: bytes) -> bytes:
    """As ImageMagick writes EXIF."""
    return b"Raw profile type exif\0\nexif\n%8d\n" % len(block) + block.hex().encode()


def test_numbers_of_exif_count_wherever_pillow_finds_them(png, chunk) -> None:
    few = RATIONALS.replace(struct.pack("<I", 100_000), struct.pack("<I", 1))[:200]
    places = {
        "eXIf": lambda block: chunk(b"eXIf", block),
        "tEXt": lambda block: chunk(b"tEXt", raw_profile(block)),
        "iTXt": lambda block: chunk(b"iTXt", b"Raw profile type exif\0\0\0\0\0" + raw_profile(block)[22:]),
        "keyword": lambda block: chunk(b"tEXt", b"exif\0" + block),
    }
    for name, place in places.items():
        assert examine(png((64, 64), 8, 2, ROWS, place(few))).seconds < 0.1, name
        with pytest.raises(ImageTooCostly):
            examine(png((64, 64), 8, 2, ROWS, place(RATIONALS)))


def test_numbers_in_a_compressed_profile_count(png, chunk) -> None:
    """Pillow unpacks a megabyte of it, so there is an end to them."""
    block = RATIONALS.replace(struct.pack("<I", 100_000), struct.pack("<I", 60_000))[:480_100]
    packed = zlib.compress(raw_profile(block)[22:])
    profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    assert examine(png((64, 64), 8, 2, ROWS, profile)).seconds > 0.5
