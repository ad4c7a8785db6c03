"""TIFF: tiles, strips and tags that cost more than the image's pixels explain; ordinary files pass."""

import struct
import zlib

import pytest
from PIL import Image

from bundle.errors import ImageTooCostly, ImageTooManyPixels, ImageUndecodable
from bundle.preprocessing import decode, examine

NO_STRIPS: list[tuple[int, int, int | None]] = [(273, 4, None), (278, 4, None), (279, 4, None)]


def big_tiff(order: str, *entries: tuple[int, str, int]) -> bytes:
    kinds = {"H": 3, "I": 4, "Q": 16}
    body = b"".join(
        struct.pack(order + "HHQ", tag, kinds[kind], 1) + struct.pack(order + kind, value).ljust(8, b"\0")
        for tag, kind, value in entries
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    return start + struct.pack(order + "Q", len(entries)) + body + b"\0" * 8


def with_count(data: bytes, tag: int, count: int) -> bytes:
    """The file with more numbers in a tag of one LONG, which stand where its value says."""
    entry = struct.pack("<HHI", tag, 4, 1)
    assert entry in data
    return data.replace(entry, struct.pack("<HHI", tag, 4, count))


# Tiles


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tile_of_too_many_pixels_is_refused(order: str, tiff) -> None:
    with pytest.raises(ImageTooManyPixels, match="1600×70000"):
        examine(tiff((10, 10), 8, b"\0" * 100, *NO_STRIPS, (322, 3, 1600), (323, 4, 70000), order=order))


def test_a_tile_of_too_many_pixels_is_refused_in_a_big_tiff() -> None:
    tags = [(256, "I", 5), (257, "I", 5), (322, "H", 1600), (323, "I", 70000)]
    with pytest.raises(ImageTooManyPixels, match="112,000,000"):
        examine(big_tiff("<", *tags))


def test_a_big_tiff_of_the_order_that_pillow_does_not_know_is_refused() -> None:
    """libtiff knows it, and would read another directory than Pillow."""
    with pytest.raises(ImageUndecodable):
        examine(big_tiff(">", (256, "I", 5), (257, "I", 5)))


@pytest.mark.parametrize("tag", [256, 273, 278])
def test_a_tag_of_the_shape_that_is_there_twice_is_refused(tag: int, tiff) -> None:
    data = tiff((10, 10), 8, bytes(100), (60_000, 4, 7))
    with pytest.raises(ImageUndecodable, match=f"tag {tag} twice"):
        examine(data.replace(struct.pack("<HHI", 60_000, 4, 1), struct.pack("<HHI", tag, 4, 1)))


def test_strips_beside_tiles_are_refused(tiff) -> None:
    with pytest.raises(ImageUndecodable, match="strips and tiles"):
        examine(tiff((10, 10), 8, bytes(100), (322, 3, 16), (323, 3, 16)))


@pytest.mark.parametrize("kind", [1, 5, 9, 13, 17, 18])
def test_an_unusual_number_type_is_refused(kind: int, tiff) -> None:
    """libtiff understands some that Pillow passes over in silence, so the tile would go unseen."""
    with pytest.raises(ImageUndecodable, match=f"tag 322 of type {kind}"):
        examine(tiff((10, 10), 8, b"\0" * 100, (322, kind, 8), (323, 4, 16)))


def test_more_than_one_number_is_refused(tiff) -> None:
    """They would stand elsewhere in the file."""
    data = bytearray(tiff((10, 10), 8, b"\0" * 100, (322, 3, 16), (323, 3, 16)))
    entry = data.index(struct.pack("<HHI", 322, 3, 1))
    data[entry : entry + 8] = struct.pack("<HHI", 322, 3, 2)
    with pytest.raises(ImageUndecodable, match="tag 322 of type 3, 2 times"):
        examine(bytes(data))


def test_a_directory_that_is_cut_off_is_refused(tiff) -> None:
    data = tiff((10, 10), 8, b"\0" * 100, (322, 3, 16), (323, 3, 16))
    for length in (4, 7, 109, 120, len(data) - 5):
        with pytest.raises(ImageUndecodable, match="cut off inside its directory"):
            examine(data[:length])


def test_a_tile_that_is_larger_than_the_image_is_decoded(tiff) -> None:
    body = bytes(range(256))
    tiles = [(322, 3, 16), (323, 3, 16), (324, 4, 8), (325, 4, 256)]
    picture = decode(tiff((10, 12), 8, body, *NO_STRIPS, *tiles))
    assert picture.size == (10, 12)
    assert picture.getpixel((3, 2)) == (35, 35, 35)


def test_high_tiles_across_a_wide_image_are_refused(tiff) -> None:
    """A hundred tiles, of which each is as many pixels as an image may have."""
    tiles = [(259, 3, 8), (322, 4, 16), (323, 4, 3_000_000), (324, 4, 8), (325, 4, 100)]
    with pytest.raises(ImageTooCostly, match="tiles larger than the image"):
        examine(tiff((1600, 16), 8, zlib.compress(bytes(4800)), *NO_STRIPS, *tiles))


# Strips


def strips(tiff, size: tuple[int, int], listed: int, stream: bytes, *tags: tuple[int, int, int]) -> bytes:
    """So many strips, all of them of the same bytes."""
    at = 8 + len(stream) + len(stream) % 2
    lists = struct.pack("<I", 8) * listed + struct.pack("<I", len(stream)) * listed
    body = stream + bytes(len(stream) % 2) + lists
    data = tiff(size, 8, body, (273, 4, at), (279, 4, at + 4 * listed), *tags)
    return with_count(with_count(data, 273, listed), 279, listed)


def test_strips_that_share_their_bytes_are_decoded(tiff) -> None:
    data = strips(tiff, (50, 40), 40, zlib.compress(bytes([7] * 50)), (259, 3, 8), (278, 4, 1))
    assert decode(data).getcolors() == [(2000, (7, 7, 7))]


def test_hundreds_of_thousands_of_strips_are_refused(tiff) -> None:
    assert examine(strips(tiff, (100, 100), 100, bytes(100), (278, 4, 1))).seconds < 0.05
    with pytest.raises(ImageTooCostly, match="strips or tiles"):
        examine(strips(tiff, (100, 100), 100_000, bytes(100), (278, 4, 1)))
    with pytest.raises(ImageTooCostly, match="strips or tiles"):
        examine(strips(tiff, (700, 70_000), 70_000, zlib.compress(bytes(700)), (259, 3, 8), (278, 4, 1)))


def test_strips_that_cover_the_image_a_thousand_times_are_refused(tiff) -> None:
    with pytest.raises(ImageTooCostly, match="room for"):
        examine(strips(tiff, (3000, 3000), 1000, bytes(10_000), (278, 4, 2999)))


def test_long_strips_that_share_their_bytes_are_refused(tiff) -> None:
    """Each is read to its end, however few rows it has."""
    with pytest.raises(ImageTooCostly, match="share their bytes"):
        examine(strips(tiff, (1000, 1000), 1000, bytes(100_000), (259, 3, 8), (278, 4, 1)))


def test_scans_in_a_strip_are_refused(tiff) -> None:
    with pytest.raises(ImageTooCostly, match="scans in its strips"):
        examine(tiff((1000, 1000), 8, b"\xff\xda" * 30, (259, 3, 7)))


def test_jpeg_strips_that_share_their_bytes_are_counted_one_by_one(tiff, encode) -> None:
    one = encode(Image.new("L", (64, 8), 128), "JPEG")
    several = one[:-2] + one[one.index(b"\xff\xda") : -2] * 2 + one[-2:]
    tags = [(259, 3, 7), (278, 4, 8)]
    assert decode(strips(tiff, (64, 800), 100, one, *tags)).size == (64, 800)
    with pytest.raises(ImageTooCostly, match="scans in its strips"):
        examine(strips(tiff, (64, 800), 100, several, *tags))


def test_ordinary_jpeg_strips_pass(encode) -> None:
    image = Image.effect_noise((2000, 1500), 80).convert("RGB")
    assert examine(encode(image, "TIFF", compression="jpeg")).seconds < 1


# Tags


@pytest.mark.parametrize("kind", [3, 4, 5, 11])
def test_hundreds_of_thousands_of_numbers_in_a_tag_are_refused(kind: int, tiff) -> None:
    count = 90_000 if kind == 5 else 1_100_000
    data = tiff((10, 10), 8, bytes(8 * 1_100_000), (282, 4, 8))
    with pytest.raises(ImageTooCostly, match="numbers in its tags"):
        examine(data.replace(struct.pack("<HHI", 282, 4, 1), struct.pack("<HHI", 282, kind, count)))


def test_numbers_in_the_directory_behind_the_pixels_count_too(tiff) -> None:
    nested = struct.pack("<HHHII", 1, 40000, 5, 100_000, 8) + bytes(4)
    with pytest.raises(ImageTooCostly, match="numbers in its tags"):
        examine(tiff((10, 10), 8, nested + bytes(800_000), (34665, 4, 8)))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_file_that_breaks_off_in_its_directory_is_undecodable(tiff) -> None:
    """Pillow reads on with the entries it has, and would show pixels if the strip comes first."""
    with pytest.raises(ImageUndecodable):
        decode(tiff((10, 10), 8, b"\0" * 100)[:-8])
