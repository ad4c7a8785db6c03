"""Directories of tags, as TIFF files and EXIF blocks have them (TIFF 6.0, section 2; BigTIFF has wider fields).

Pillow makes a Python object of each number of a tag that it is asked for: 2.5 million rationals take 25 seconds.
"""

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bundle.formats.work import Work

Order = Literal["<", ">"]
ORDERS: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes, by type
_WHOLE = frozenset({1, 2, 7})  # bytes, texts and blocks stay whole
_RATIONALS = frozenset({5, 10})
_SECONDS_A_TAG = 50e-6
_SECONDS_A_NUMBER, _BYTES_A_NUMBER = 1e-6, 80
_SECONDS_A_RATIONAL, _BYTES_A_RATIONAL = 12e-6, 200


class Tag(NamedTuple):
    kind: int
    length: int  # how many numbers
    at: int  # where its numbers stand


@dataclass(frozen=True, slots=True)
class Directory:
    """The first of each tag, by number; Pillow and libtiff take the first as well."""

    order: Order
    tags: dict[int, Tag]
    repeated: set[int]

    @property
    def byte_order(self) -> Literal["little", "big"]:
        return "little" if self.order == "<" else "big"


def read_directory(
    data: bytes,
    start: int,
    order: Order,
    work: Work,
    *,
    big: bool = False,
    passed_over: frozenset[int] = frozenset(),
) -> Directory:
    """The directory at `start`, and the work of unpacking all numbers in it, also of tags that are there twice.

    Raises `struct.error` where it is cut off, `ImageTooCostly`.
    """
    length, entry, inline = (order + "Q", order + "HHQ8s", 8) if big else (order + "H", order + "HHI4s", 4)
    (count,) = struct.unpack_from(length, data, start)
    step, at = struct.calcsize(entry), start + struct.calcsize(length)
    there = min(count, (len(data) - at) // step)
    work.add("tags", there * _SECONDS_A_TAG)
    directory = Directory(order, {}, set())
    for tag, kind, numbers, value in struct.iter_unpack(entry, data[at : at + there * step]):
        at += step
        fits = numbers * SIZES.get(kind, 1) <= inline
        found = Tag(kind, numbers, at - inline if fits else int.from_bytes(value, directory.byte_order))
        if tag not in passed_over:
            _add_numbers(found, len(data), work)
        if directory.tags.setdefault(tag, found) is not found:
            directory.repeated.add(tag)
    if there < count:
        raise struct.error("cut off")
    return directory


def _add_numbers(tag: Tag, length: int, work: Work) -> None:
    """Pillow passes over a tag that is longer than the file."""
    if tag.kind in _WHOLE or tag.length * SIZES.get(tag.kind, length) > length:
        return
    if tag.kind in _RATIONALS:
        work.add("numbers in its tags", tag.length * _SECONDS_A_RATIONAL, tag.length * _BYTES_A_RATIONAL)
    else:
        work.add("numbers in its tags", tag.length * _SECONDS_A_NUMBER, tag.length * _BYTES_A_NUMBER)


def add_exif(block: bytes, work: Work) -> None:
    """The work of reading an EXIF block's orientation and resolution; a damaged block has none."""
    for _ in range(2):
        block = block.removeprefix(b"Exif\0\0")
    order = ORDERS.get(block[:2])
    if order is None:
        return
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        read_directory(block, start, order, work)
    except struct.error:
        return
