"""TIFF 6.0 and BigTIFF: the first page's tags, and its strips or tiles.

Strips may share bytes, tiles may outgrow the image, and each may be a file of its own in JPEG: a small file can stand
for hours of work. Pillow reads uncompressed parts in Python, libtiff all others.
"""

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.formats.directory import ORDERS, SIZES, Directory, read_directory
from bundle.formats.work import Header, Work

Numbers = npt.NDArray[np.unsignedinteger]

_WIDTH, _LENGTH, _COMPRESSION, _SAMPLES, _PLANAR = 256, 257, 259, 277, 284
_OFFSETS, _ROWS, _COUNTS = 273, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_SHAPE = frozenset({_WIDTH, _LENGTH, _COMPRESSION, _SAMPLES, _PLANAR, _ROWS, _TILE_WIDTH, _TILE_LENGTH})
_LISTS = frozenset({_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS})
_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965  # directories that Pillow reads behind the pixels
_UNSIGNED = {3: "u2", 4: "u4", 16: "u8"}  # SHORT, LONG and BigTIFF's LONG8
_RAW, _JPEG, _DEFLATE, _SEPARATE, _MOST_SAMPLES = 1, frozenset({6, 7}), frozenset({8, 32946}), 2, 6

_SECONDS_A_RAW_PART, _BYTES_A_RAW_PART, _SECONDS_A_PART = 18e-6, 300, 25e-6
_SECONDS_A_LISTED_PART, _BYTES_A_LISTED_PART = 0.2e-6, 40
_SECONDS_A_PIXEL, _SECONDS_A_RAW_PIXEL = 18e-9, 2e-9
_SECONDS_A_BYTE, _SECONDS_OF_OTHERS = {1: 1e-9, 32773: 2e-9, 5: 1.2e-8, 34925: 1e-7}, 3e-8  # PackBits, LZW, LZMA
_SECONDS_AN_EMPTY_BYTE, _USUAL_EXCESS = 1.5e-7, 2**16  # deflate can take much longer for one that stands for no pixel
_BYTES_OF_A_TILED_PIXEL = 4
_SECONDS_A_PAIR_OF_TAGS = 7e-8  # libtiff sorts them all anew for each that it does not know
_SECONDS_A_SCAN = 0.1  # libtiff lets a JPEG strip have 100 scans, and 100 MB of coefficients
_SCAN, _USUAL_SCANS = b"\xff\xda", 4  # beside one for each part: byte pairs that look like one


@dataclass(frozen=True)
class _Page:
    """How a page's pixels are stored: `part_width` × `part_height` is a strip or a tile."""

    width: int
    height: int
    compression: int
    samples: int
    planes: int
    part_width: int
    part_height: int

    @property
    def parts(self) -> int:
        """How many cover the image."""
        return math.ceil(self.width / self.part_width) * math.ceil(self.height / self.part_height) * self.planes

    @property
    def excess(self) -> int:
        """Pixels of all parts that lie outside of the image."""
        return self.parts // self.planes * self.part_width * self.part_height - self.width * self.height


def walk(data: bytes, work: Work) -> Header:
    """Raises `ValueError` where the directory is damaged, `ImageRefused` for what is too much."""
    order, big = ORDERS[data[:2]], data[2] == 43  # Pillow takes a BigTIFF of the other order for a classic one
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        directory = read_directory(data, start, order, work, big=big, passed_over=_LISTS)
    except struct.error as exc:
        raise ValueError("cut off inside its directory") from exc
    work.add("tags", len(directory.tags) ** 2 * _SECONDS_A_PAIR_OF_TAGS)
    if repeated := directory.repeated & (_SHAPE | _LISTS):  # libtiff takes the first, Pillow the first that it knows
        raise ValueError(f"tag {min(repeated)} twice")
    size = _number(data, directory, _WIDTH), _number(data, directory, _LENGTH)
    work.check_size(size)
    page = _page(data, directory, size, work)
    _add_directories(data, directory, big, work)
    if page.compression == _RAW:
        _add_raw_parts(data, directory, page, work)
    else:
        _add_parts(data, directory, page, work)
    a_byte = _SECONDS_A_BYTE.get(page.compression, _SECONDS_OF_OTHERS)
    return Header(size, size[0] * size[1] * _SECONDS_A_PIXEL + len(data) * a_byte)


def _page(data: bytes, directory: Directory, size: tuple[int, int], work: Work) -> _Page:
    """Tiles or strips: libtiff reads tiles where a tile has a size, Pillow where there are no strips."""
    compression = _number(data, directory, _COMPRESSION, _RAW)
    separate = _number(data, directory, _PLANAR, 1) == _SEPARATE
    samples = _number(data, directory, _SAMPLES, _MOST_SAMPLES)
    planes = samples if separate else 1
    tile = _number(data, directory, _TILE_WIDTH, 0), _number(data, directory, _TILE_LENGTH, 0)
    work.check_pixels(tile)
    if any(tile) and _OFFSETS in directory.tags:
        raise ValueError("strips and tiles")
    if not any(tile):
        tile = size[0], min(size[1], _number(data, directory, _ROWS, size[1]))
    if not min(*tile, planes):
        raise ValueError("strips or tiles without pixels")
    return _Page(*size, compression, samples, planes, *tile)


def _add_raw_parts(data: bytes, directory: Directory, page: _Page, work: Work) -> None:
    """Pillow reads all that are listed, also those that the image has no room for: they cover it once more."""
    listed = max(_listed(directory, tag, data) for tag in _LISTS)
    work.add("strips or tiles", listed * _SECONDS_A_RAW_PART, listed * _BYTES_A_RAW_PART)
    of_a_part = min(page.part_width, page.width) * min(page.part_height, page.height)
    if listed > page.parts:
        work.add("more strips or tiles than it has room for", listed * of_a_part * _SECONDS_A_RAW_PIXEL)


def _add_parts(data: bytes, directory: Directory, page: _Page, work: Work) -> None:
    listed = max(_listed(directory, tag, data) for tag in _LISTS)
    work.add("strips or tiles", listed * _SECONDS_A_LISTED_PART, listed * _BYTES_A_LISTED_PART)
    work.add("strips or tiles", page.parts * _SECONDS_A_PART)
    excess = max(0, page.excess)
    work.add("tiles larger than the image", excess * _SECONDS_A_PIXEL, excess * _BYTES_OF_A_TILED_PIXEL)
    lengths = _numbers(data, directory, (_COUNTS, _TILE_COUNTS), page.parts)
    _add_read(data, page, lengths, work)
    if page.compression in _JPEG:
        offsets = _numbers(data, directory, (_OFFSETS, _TILE_OFFSETS), page.parts)
        if offsets is None or lengths is None:
            scans = data.count(_SCAN) * page.parts
        else:
            parts = zip(offsets.tolist(), lengths.tolist(), strict=True)
            scans = sum(data.count(_SCAN, at, at + length) for at, length in parts)
        work.add("scans in its strips", max(0, scans - page.parts - _USUAL_SCANS) * _SECONDS_A_SCAN)


def _add_read(data: bytes, page: _Page, lengths: Numbers | None, work: Work) -> None:
    """Of each strip or tile all is read; libtiff takes the file's length for that of each where none is given."""
    read = page.parts * len(data) if lengths is None else int(np.minimum(lengths, len(data)).astype(np.int64).sum())
    a_byte = _SECONDS_A_BYTE.get(page.compression, _SECONDS_OF_OTHERS)
    work.add("strips or tiles that share their bytes", max(0, read - len(data)) * a_byte)
    excess = read - 2 * page.width * page.height * page.samples - _USUAL_EXCESS
    if page.compression in _DEFLATE and excess > 0:
        work.add("packed data that is no image", excess * _SECONDS_AN_EMPTY_BYTE)


def _numbers(data: bytes, directory: Directory, tags: tuple[int, int], count: int) -> Numbers | None:
    """Of strips or of tiles, one for each; None where they are not as TIFF 6.0 has them."""
    found = directory.tags.get(tags[0]) or directory.tags.get(tags[1])
    if found is None or found.kind not in _UNSIGNED or found.length < count:
        return None
    if found.at + count * SIZES[found.kind] > len(data):
        return None
    return np.frombuffer(data, directory.order + _UNSIGNED[found.kind], count, found.at)


def _listed(directory: Directory, tag: int, data: bytes) -> int:
    """How many strips or tiles a tag names; a tag that is longer than the file names none."""
    found = directory.tags.get(tag)
    return found.length if found and found.length * SIZES.get(found.kind, 1) <= len(data) else 0


def _add_directories(data: bytes, directory: Directory, big: bool, work: Work) -> None:
    """What Pillow reads whole: every number in it, asked for or not."""
    exif = _add_directory(data, directory, _EXIF, big, work)
    _add_directory(data, directory, _GPS, big, work)
    _add_directory(data, exif or directory, _INTEROPERABILITY, big, work)


def _add_directory(data: bytes, parent: Directory, tag: int, big: bool, work: Work) -> Directory | None:
    found = parent.tags.get(tag)
    if found is None or found.kind not in SIZES:
        return None
    start = int.from_bytes(data[found.at : found.at + SIZES[found.kind]], parent.byte_order)
    try:
        return read_directory(data, start, parent.order, work, big=big)
    except (struct.error, OverflowError):  # it leads out of the file, and Pillow passes over it
        return None


def _number(data: bytes, directory: Directory, tag: int, default: int | None = None) -> int:
    """Of a tag that says how pixels are stored, for which TIFF 6.0 allows SHORT and LONG.

    libtiff understands types that Pillow passes over in silence, and what it then reads would go unseen.
    """
    found = directory.tags.get(tag)
    if found is None:
        if default is None:
            raise ValueError("no size")
        return default
    kind = _UNSIGNED.get(found.kind)
    if kind is None or found.length != 1 or found.at + SIZES[found.kind] > len(data):
        raise ValueError(f"tag {tag} of type {found.kind}, {found.length} times")
    return int.from_bytes(data[found.at : found.at + SIZES[found.kind]], directory.byte_order)
