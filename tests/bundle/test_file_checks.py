"""Hidden work in a file is found before Pillow decodes it; ordinary files pass."""

import struct
import zlib

import pytest
from PIL import Image

from bundle.errors import ImageUndecodable
from bundle.file_checks import MAX_SEGMENTS, MAX_TEXTS, tile_size, too_many_parts
from bundle.preprocessing import decode

# Parts


def jpeg(front: bytes, encode) -> bytes:
    """Behind a segment that holds what looks like a scan."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + segment(0xE1, b"no \xff\xda scan") + front + data[2:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_ordinary_files_have_few_parts(small_files: dict[str, bytes]) -> None:
    assert {name: too_many_parts(data) for name, data in small_files.items()} == dict.fromkeys(small_files, "")


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
    assert decode(jpeg(part * (MAX_SEGMENTS - 20), encode)).size == (64, 64)
    with pytest.raises(ImageUndecodable, match=f"more than {MAX_SEGMENTS} segments"):
        decode(jpeg(part * (MAX_SEGMENTS + 1), encode))


@pytest.mark.parametrize("kind", [b"iCCP", b"iTXt", b"zTXt"])
def test_a_png_of_very_many_compressed_texts_is_refused(kind: bytes, png, chunk) -> None:
    text = chunk(
        kind, b"x\0\1\0\0\0" + zlib.compress(b"text") if kind == b"iTXt" else b"x\0\0" + zlib.compress(b"text")
    )
    rows = [bytes(192)] * 64
    assert decode(png((64, 64), 8, 2, rows, text * MAX_TEXTS)).size == (64, 64)
    with pytest.raises(ImageUndecodable, match=f"more than {MAX_TEXTS} compressed texts and profiles"):
        decode(png((64, 64), 8, 2, rows, text * (MAX_TEXTS + 1)))


def test_texts_behind_the_pixels_count_too(png, chunk) -> None:
    data, end = png((64, 64), 8, 2, [bytes(192)] * 64), chunk(b"IEND", b"")
    texts = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"text")) * (MAX_TEXTS + 1)
    with pytest.raises(ImageUndecodable, match="compressed texts"):
        decode(data[: -len(end)] + texts + end)


@pytest.mark.parametrize("start", [b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_a_file_that_ends_at_once_has_few_parts(start: bytes) -> None:
    assert too_many_parts(start) == ""


# Tiles of a TIFF


def big_tiff(order: str, *entries: tuple[int, str, int]) -> bytes:
    kinds = {"H": 3, "I": 4, "Q": 16}
    body = b"".join(
        struct.pack(order + "HHQ", tag, kinds[kind], 1) + struct.pack(order + kind, value).ljust(8, b"\0")
        for tag, kind, value in entries
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    return start + struct.pack(order + "Q", len(entries)) + body + b"\0" * 8


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_of_a_classic_file(order: str, tiff) -> None:
    assert tile_size(tiff((10, 10), 8, b"\0" * 100, (322, 3, 16), (323, 4, 70000), order=order)) == (16, 70000)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiles_of_a_big_tiff(order: str) -> None:
    assert tile_size(big_tiff(order, (256, "I", 5), (322, "H", 16), (323, "I", 70000))) == (16, 70000)


def test_strips_have_no_tile_size(tiff) -> None:
    assert tile_size(tiff((10, 10), 8, b"\0" * 100)) == (0, 0)


def test_the_larger_of_two_entries_counts() -> None:
    for widths in [(16, 99), (99, 16)]:
        entries = [(322, "I", width) for width in widths]
        assert tile_size(big_tiff("<", *entries, (323, "H", 1))) == (99, 1)


@pytest.mark.parametrize("kind", [1, 5, 9, 13, 16, 17, 18])
def test_an_unusual_number_type_is_refused(kind: int, tiff) -> None:
    """libtiff understands some that Pillow passes over in silence, so the tile would go unseen."""
    data = tiff((10, 10), 8, b"\0" * 100, (322, kind, 8), (323, 4, 16))
    with pytest.raises(ValueError, match=f"tile size of type {kind}, 1 times"):
        tile_size(data)
    with pytest.raises(ImageUndecodable, match=f"tile size of type {kind}"):
        decode(data)


def test_more_than_one_number_is_refused(tiff) -> None:
    """They would stand elsewhere in the file."""
    data = bytearray(tiff((10, 10), 8, b"\0" * 100, (322, 3, 16), (323, 3, 16)))
    entry = data.index(struct.pack("<HHI", 322, 3, 1))
    data[entry : entry + 8] = struct.pack("<HHI", 322, 3, 2)
    with pytest.raises(ValueError, match="tile size of type 3, 2 times"):
        tile_size(bytes(data))


def test_a_directory_that_is_cut_off_is_refused(tiff) -> None:
    data = tiff((10, 10), 8, b"\0" * 100, (322, 3, 16), (323, 3, 16))
    for length in (3, 7, 109, 120, len(data) - 5):
        with pytest.raises(ValueError, match="cut off inside its directory"):
            tile_size(data[:length])


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_file_that_breaks_off_in_its_directory_is_undecodable(tiff) -> None:
    """Pillow reads on with the entries it has, and would show pixels if the strip comes first."""
    with pytest.raises(ImageUndecodable):
        decode(tiff((10, 10), 8, b"\0" * 100)[:-8])


def test_ordinary_tiles_are_decoded(tiff) -> None:
    """A picture smaller than its one tile, as small tiled files have it."""
    body = bytes(range(256))
    no_strips = [(273, 4, None), (278, 4, None), (279, 4, None)]
    tiles = [(322, 3, 16), (323, 3, 16), (324, 4, 8), (325, 4, 256)]
    picture = decode(tiff((10, 12), 8, body, *no_strips, *tiles))
    assert picture.size == (10, 12)
    assert picture.getpixel((3, 2)) == (35, 35, 35)
