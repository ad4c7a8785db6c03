"""Ten thousand ways to damage a picture: the same number always gives the same file."""

import random
import struct
import zlib
from collections.abc import Callable

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xDEADBEEF)
_MARKERS = tuple(bytes([0xFF, second]) for second in (0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE))
_PARTS = (
    *_MARKERS,
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"tRNS",
    b"eXIf",
    b"VP8 ",
    b"VP8L",
    b"VP8X",
    b"ANMF",
    b"EXIF",
    b"!\xf9",
    b",\0\0",
)

Change = Callable[[bytearray, random.Random, list[bytes]], None]


def mutated(number: int, seeds: list[bytes]) -> bytes:
    """A few random changes to one of the seeds."""
    chance = random.Random(number)
    data = bytearray(seeds[number % len(seeds)])
    for _ in range(chance.randint(1, 4)):
        if len(data) > 16:
            chance.choice(CHANGES)(data, chance, seeds)
    return bytes(data)


def flip_bits(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def overwrite_a_number(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Of two or four bytes, near the start, where sizes and offsets stand."""
    form = chance.choice(["<H", ">H", "<I", ">I"])
    where = chance.randrange(min(200, len(data)) - 4)
    struct.pack_into(form, data, where, chance.choice(EXTREMES) % 256 ** struct.calcsize(form))


def truncate(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    del data[chance.randrange(8, len(data)) :]


def drop(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    del data[_span(data, chance, 64)]


def repeat(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    where = _span(data, chance, 64)
    data[where.start : where.start] = data[where] * chance.randint(1, 20)


def splice(data: bytearray, chance: random.Random, seeds: list[bytes]) -> None:
    """A piece of another picture, from its start or its middle."""
    other = chance.choice(seeds)
    start = chance.choice([0, chance.randrange(len(other))])
    data[_span(data, chance, 64)] = other[start : start + chance.randint(1, 4000)]


def repeat_a_part(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """A chunk, segment or block from where its name stands, before itself."""
    start = _part(data, chance)
    data[start:start] = data[start : start + chance.randint(8, 600)] * chance.randint(1, 3)


def edit_a_length(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """Beside the name of a part; before it in a PNG, behind it elsewhere."""
    start = max(0, min(_part(data, chance) + chance.choice([-4, 2, 4]), len(data) - 4))
    form = chance.choice(["<H", ">H", "<I", ">I"])
    (found,) = struct.unpack_from(form, data, start)
    new = chance.choice([found + chance.randint(-9, 9), chance.choice(EXTREMES)])
    struct.pack_into(form, data, start, new % 256 ** struct.calcsize(form))


def mend_checksums(data: bytearray, chance: random.Random, _: list[bytes]) -> None:
    """So that damage to a PNG gets past its checksums."""
    position = 8
    while data.startswith(b"\x89PNG") and position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4


def _span(data: bytearray, chance: random.Random, longest: int) -> slice:
    start = chance.randrange(len(data) - 8)
    return slice(start, min(start + chance.randint(1, longest), len(data) - 8))


def _part(data: bytearray, chance: random.Random) -> int:
    places = [place for name in _PARTS if (place := data.find(name)) >= 0]
    return chance.choice(places) if places else chance.randrange(len(data))


CHANGES: tuple[Change, ...] = (
    flip_bits,
    overwrite_a_number,
    truncate,
    drop,
    repeat,
    splice,
    repeat_a_part,
    edit_a_length,
    mend_checksums,
)
