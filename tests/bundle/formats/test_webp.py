"""WebP: chunks and EXIF that cost more than its pixels explain; lossless images may hide work."""

import struct

import pytest
from PIL import Image

from bundle.errors import ImageTooCostly
from bundle.preprocessing import examine

RATIONALS = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 5, 100_000, 26) + bytes(4 + 800_000)


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    whole = bytearray(data + kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2))
    whole[4:8] = struct.pack("<I", len(whole) - 8)
    return bytes(whole)


def test_numbers_of_exif_count(small_files) -> None:
    with pytest.raises(ImageTooCostly, match="numbers in its tags"):
        examine(with_chunk(small_files["webp"], b"EXIF", RATIONALS))


def test_exif_behind_a_frame_that_holds_what_is_no_chunk_counts(small_files) -> None:
    """What a frame holds behind its image must not lead past the chunks that follow it."""
    frame = bytes(16) + b"VP8 \xff\xff\xff\0"
    with pytest.raises(ImageTooCostly, match="numbers in its tags"):
        examine(with_chunk(with_chunk(small_files["webp-animated"], b"ANMF", frame), b"EXIF", RATIONALS))


def test_very_many_chunks_are_refused(small_files) -> None:
    with pytest.raises(ImageTooCostly, match="chunks"):
        examine(small_files["webp"] + b"juNk\0\0\0\0" * 200_000)


def test_lossless_pixels_are_taken_for_costly(encode) -> None:
    """The file may have 65,536 groups of codes, each with tables of kilobytes; nobody knows without reading it."""
    image = Image.effect_noise((1000, 1000), 80).convert("RGB")
    lossy, lossless = examine(encode(image, "WEBP")), examine(encode(image, "WEBP", lossless=True))
    assert lossless.seconds > 3 * lossy.seconds
