"""Damaged files: cut off anywhere, or with bytes flipped, removed, inserted and spliced."""

import contextlib
import random
import signal
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from bundle.errors import ImageFormatRefused, ImageRefused, ImageUndecodable
from bundle.formats.walk import ALLOWED_FORMATS
from bundle.preprocessing import Preprocessing, decode

# Pillow warns of damage where it goes on regardless; outside of tests nobody makes that an error.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

MUTANTS_OF_A_FORMAT = 700
CPU_SECONDS_FOR_ONE = 20
FAMILIES = tuple(name.lower() for name in ALLOWED_FORMATS)


class Hang(BaseException):
    """Not an `Exception`, so that no handler takes it for a decoder's complaint."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Counts this process's own time: a busy machine is no hang. The wall clock belongs to pytest-timeout."""

    def ring(*_: object) -> None:
        raise Hang

    previous = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS_FOR_ONE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def of_family(files: dict[str, bytes], family: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.partition("-")[0] == family}


def test_the_small_files_cover_every_format(small_files: dict[str, bytes]) -> None:
    for family in FAMILIES:
        assert len(of_family(small_files, family)) >= 3, family
    for data in small_files.values():
        decode(data)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_prefix_is_refused_or_is_the_whole_picture(family: str, small_files: dict[str, bytes]) -> None:
    """What is lost may be padding, a second frame or an idle end mark; it is never a part of the picture."""
    for name, data in of_family(small_files, family).items():
        whole = np.asarray(decode(data))
        for length in range(len(data)):
            with contextlib.suppress(ImageUndecodable, ImageFormatRefused):
                np.testing.assert_array_equal(np.asarray(decode(data[:length])), whole, f"{name}[:{length}]")


@pytest.mark.parametrize("family", FAMILIES)
def test_half_a_file_is_refused(family: str, small_files: dict[str, bytes]) -> None:
    """The picture of a multi-frame file may end before its middle; every other one is lost."""
    for name, data in of_family(small_files, family).items():
        if name not in {"jpeg-mpo", "tiff-pages"}:
            with pytest.raises(ImageUndecodable, match="send a whole, undamaged file"):
                decode(data[: len(data) // 2])


@pytest.mark.parametrize(("name", "lost"), [("png", 12), ("png", 1), ("gif", 1), ("jpeg", 2), ("webp", 1)])
def test_a_missing_end_mark_is_refused(name: str, lost: int, small_files: dict[str, bytes]) -> None:
    """The last byte is the proof that nothing was cut off, also where every pixel is there."""
    with pytest.raises(ImageUndecodable):
        decode(small_files[name][:-lost])


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_behind_the_end_do_no_harm(family: str, small_files: dict[str, bytes]) -> None:
    for data in of_family(small_files, family).values():
        np.testing.assert_array_equal(np.asarray(decode(data + b"\0" * 100)), np.asarray(decode(data)))


@pytest.mark.parametrize("family", FAMILIES)
def test_mutated_files_are_decoded_or_refused_and_never_hang(family: str, small_files: dict[str, bytes]) -> None:
    generator = random.Random(family)
    donors = list(small_files.values())
    originals = list(of_family(small_files, family).values())
    preprocessing, outcomes = Preprocessing(), {"pixels": 0, "refused": 0}
    for _ in range(MUTANTS_OF_A_FORMAT):
        mutant = mutate(generator, generator.choice(originals), donors)
        with alarm():
            try:
                assert preprocessing(mutant).shape == (224, 224, 3)
                outcomes["pixels"] += 1
            except ImageRefused:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > MUTANTS_OF_A_FORMAT // 50, "neither side of the border was reached"


def mutate(generator: random.Random, original: bytes, donors: list[bytes]) -> bytes:
    data = bytearray(original)
    for _ in range(generator.choice([1, 1, 2, 4, 8])):
        generator.choice([flip, flip, overwrite, remove, insert, splice])(generator, data, donors)
    return repaired_png(bytes(data)) if generator.random() < 0.7 else bytes(data)


def somewhere(generator: random.Random, data: bytearray) -> int:
    """Headers are short and decide most, so every second hit goes there."""
    return generator.randrange(min(len(data), generator.choice([100, len(data)])) or 1)


def flip(generator: random.Random, data: bytearray, donors: list[bytes]) -> None:
    if data:
        data[somewhere(generator, data)] ^= 1 << generator.randrange(8)


def overwrite(generator: random.Random, data: bytearray, donors: list[bytes]) -> None:
    start = somewhere(generator, data)
    values = generator.choice([b"\0", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", generator.randbytes(3)])
    data[start : start + len(values)] = values


def remove(generator: random.Random, data: bytearray, donors: list[bytes]) -> None:
    start = somewhere(generator, data)
    del data[start : start + generator.choice([1, 2, 10, 300])]


def insert(generator: random.Random, data: bytearray, donors: list[bytes]) -> None:
    start = somewhere(generator, data)
    data[start:start] = generator.randbytes(generator.choice([1, 2, 10, 300]))


def splice(generator: random.Random, data: bytearray, donors: list[bytes]) -> None:
    donor, length = generator.choice(donors), generator.choice([4, 20, 200])
    start, source = somewhere(generator, data), generator.randrange(len(donor))
    data[start : start + length] = donor[source : source + length]


def repaired_png(data: bytes) -> bytes:
    """Checksums that fit again, or a PNG's damage would never come past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    fixed, position = bytearray(data), 8
    while position + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, position)
        end = position + 8 + length
        if end + 4 <= len(fixed):
            fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[position + 4 : end]))
        position = end + 4
    return bytes(fixed)
