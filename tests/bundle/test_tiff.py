"""A TIFF's tile size is found in every byte order and width of fields, or the file is refused."""

import struct

import pytest

from bundle.errors import ImageUndecodable
from bundle.preprocessing import decode
from bundle.tiff import tile_size


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
