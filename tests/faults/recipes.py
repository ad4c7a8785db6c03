"""Files of each format out of a few numbers and words, for the search and for the worst cases that it found.

A recipe is a plain record, so that a case is a line of code however large its file is.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from hypothesis import strategies as st
from PIL import Image

LARGEST = 20 * 10**6  # bytes that a server takes
Recipe = "Jpeg | Png | Gif | Bmp | Tiff | Webp"


def pixels(size: tuple[int, int], content: str, bands: int) -> np.ndarray:
    """Flat, noise, or smooth as a photo is: uint8 [height, width, bands]."""
    width, height = size
    if content == "flat":
        return np.full((height, width, bands), 77, np.uint8)
    grain = np.random.default_rng(0).integers(0, 256, (min(height, 500), min(width, 500), bands), np.uint8)
    if content == "smooth":
        grain = np.cumsum(grain.astype(np.int8) // 40, axis=1).astype(np.uint8)
    times = (-(-height // grain.shape[0]), -(-width // grain.shape[1]), 1)
    return np.tile(grain, times)[:height, :width]


def encoded(size: tuple[int, int], content: str, mode: str, format_name: str, **options: object) -> bytes:
    array = pixels(size, content, Image.getmodebands(mode))
    image = Image.frombytes(mode, size, array.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def noise(length: int) -> bytes:
    return random.Random(0).randbytes(length)


class Bits:
    """Numbers of any width, the lowest bit first, as deflate, LZW and lossless WebP pack them."""

    def __init__(self) -> None:
        self._value = self._width = 0
        self._bytes = bytearray()

    def put(self, *pairs: tuple[int, int]) -> None:
        """Pairs of a number and its width."""
        for value, width in pairs:
            self._value |= value << self._width
            self._width += width
            while self._width >= 8:
                self._bytes.append(self._value & 0xFF)
                self._value >>= 8
                self._width -= 8

    def done(self) -> bytes:
        return bytes(self._bytes) + (bytes([self._value]) if self._width else b"")


def empty_blocks(count: int) -> bytes:
    """Deflate blocks (RFC 1951, 3.2.7) that say nothing, each with tables of its own; eight fill whole bytes."""
    bits, order = Bits(), [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    for _ in range(8):
        bits.put((0, 1), (2, 2), (0, 5), (0, 5), (14, 4), *((int(length in {18, 1}), 3) for length in order[:18]))
        bits.put((1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1))
    return bits.done() * (count // 8)


def deflated(data: bytes, empty: int) -> bytes:
    return b"x\x01" + empty_blocks(empty) + zlib.compress(data, 1)[2:]


# EXIF and TIFF


def tiff_tags(tags: list[tuple[int, int, int, bytes]], base: int, order: str = "<") -> tuple[bytes, bytes]:
    """A directory at `base`, and what it refers to behind it; each tag is number, type, count and bytes."""
    front, back = struct.pack(order + "H", len(tags)), b""
    behind = base + 2 + 12 * len(tags) + 4
    for number, kind, count, value in sorted(tags, key=lambda tag: tag[0]):
        if len(value) > 4:
            place = struct.pack(order + "I", behind + len(back))
            back += value
        else:
            place = value.ljust(4, b"\0")
        front += struct.pack(order + "HHI", number, kind, count) + place
    return front + bytes(4), back


@dataclass(frozen=True)
class Exif:
    """`tags` empty tags, and `count` numbers of a type in one that Pillow asks for."""

    tag: int = 0x0112
    kind: int = 3
    count: int = 1
    tags: int = 0

    def block(self) -> bytes:
        size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}.get(self.kind, 4)
        count = min(self.count, LARGEST // 2 // size)
        tags = [(self.tag, self.kind, count, b"\1\0\0\0" * (count * size // 4 + 1))]
        tags += [(40000 + number, 3, 1, b"\1\0") for number in range(min(self.tags, 25_000))]
        front, back = tiff_tags(tags, 8)
        return b"II*\0\x08\0\0\0" + front + back


EXIFS = st.none() | st.builds(
    Exif,
    st.sampled_from([0x0112, 0x011A, 0x0128, 34665, 700]),
    st.sampled_from([1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 16]),
    st.sampled_from([0, 1, 2, 1000, 30_000, 80_000, 500_000, 2_000_000]),
    st.sampled_from([0, 10, 1000, 25_000]),
)
SIZES = st.tuples(st.sampled_from([1, 7, 64, 300, 1000, 2500]), st.sampled_from([1, 7, 64, 300, 1000, 2500])).filter(
    lambda size: max(size) <= 100 * min(size)
)
CONTENTS = st.sampled_from(["flat", "noise", "smooth"])
COUNTS = st.sampled_from([0, 1, 10, 100, 900, 5000, 30_000, 150_000])
LENGTHS = st.sampled_from([0, 1, 2, 16, 100, 5000, 65_000])


def cut(data: bytes) -> bytes:
    return data[:LARGEST]


# JPEG


@dataclass(frozen=True)
class Jpeg:
    size: tuple[int, int]
    content: str
    mode: str = "RGB"
    quality: int = 75
    progressive: bool = False
    restart: int = 0
    front: tuple[tuple[int, str, int, int], ...] = ()  # marker, start of the body, its length, how often
    exif: Exif | None = None
    scans: int = 0
    gap: int = 0

    def build(self) -> bytes:
        data = encoded(
            self.size,
            self.content,
            self.mode,
            "JPEG",
            quality=self.quality,
            progressive=self.progressive,
            restart_marker_blocks=self.restart,
        )
        front = b"".join(
            (b"\xff" + bytes([marker]) + struct.pack(">H", length + 2) + _body(start, length)) * count
            for marker, start, length, count in self.front
        )
        if self.exif:
            block = self.exif.block()
            parts = [block[at : at + 65_000] for at in range(0, len(block), 65_000)]
            front += b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
        scan, end = data.rindex(b"\xff\xda"), len(data) - 2
        whole = data[:2] + front + data[2:20] + bytes(self.gap) + data[20:end] + data[scan:end] * self.scans
        return cut(whole)[: LARGEST - 2] + b"\xff\xd9"


STARTS = {
    "": b"",
    "exif": b"Exif\0\0",
    "icc": b"ICC_PROFILE\0\1\1",
    "photoshop": b"Photoshop 3.0\0",
    "8BIM": b"8BIM" + bytes(8),
    "mpf": b"MPF\0II*\0\x08\0\0\0",
    "xmp": b"http://ns.adobe.com/xap/1.0/\0",
    "table": b"\0" + b"\1" * 64,
    "frame": bytes([8, 0, 64, 0, 64, 3]),
    "adobe": b"Adobe\0\x64\0\0\0\0\1",
}


def _body(start: str, length: int) -> bytes:
    first = STARTS["photoshop"] if start == "8BIM" else b""
    unit = STARTS[start] or b"\0"
    repeated = start in {"table", "8BIM"}
    body = first + (unit * (length // len(unit) + 1) if repeated else unit)
    return body[: len(first) + length // len(unit) * len(unit)][:length].ljust(length, b"\0")


JPEGS = st.builds(
    Jpeg,
    SIZES,
    CONTENTS,
    st.sampled_from(["L", "RGB", "CMYK"]),
    st.sampled_from([5, 75, 98]),
    st.booleans(),
    st.sampled_from([0, 0, 1]),
    st.lists(
        st.tuples(
            st.sampled_from([0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE]),
            st.sampled_from(sorted(STARTS)),
            LENGTHS,
            st.sampled_from([1, 10, 100, 290, 900]),
        ),
        max_size=3,
    ).map(tuple),
    EXIFS,
    st.sampled_from([0, 0, 10, 100, 480]),
    st.sampled_from([0, 0, 1000, 4_000_000]),
)


# PNG


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@dataclass(frozen=True)
class Png:
    size: tuple[int, int]
    content: str
    kind: tuple[int, int] = (8, 2)  # bit depth and colour type
    filter: int = 0
    interlaced: bool = False
    empty: int = 0  # blocks of the stream that say nothing
    split: int = 2**20  # bytes of an IDAT chunk
    chunks: tuple[tuple[str, int, int], ...] = ()  # type, bytes when unpacked, how often
    exif: Exif | None = None
    behind: bool = False  # the chunks stand behind the pixels

    def build(self) -> bytes:
        bits, colour = self.kind
        bands = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        row = (self.size[0] * bits * bands + 7) // 8
        rows = pixels((row, self.size[1]), self.content, 1).reshape(self.size[1], row)
        raw = np.concatenate([np.full((self.size[1], 1), self.filter, np.uint8), rows], axis=1).tobytes()
        if self.interlaced:
            raw += bytes(2 * self.size[1] + len(raw) // 8)
        stream = deflated(raw, self.empty)[: LARGEST - 10_000]
        split = max(self.split, len(stream) // 200_000 + 1)
        idat = b"".join(chunk(b"IDAT", stream[at : at + split]) for at in range(0, len(stream), split))
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", *self.size, bits, colour, 0, 0, self.interlaced))
        more = b"".join(
            _chunk_of(kind, length) * min(count, 1 + 5 * 10**6 // (length + 12)) for kind, length, count in self.chunks
        )
        if self.exif:
            more += chunk(b"eXIf", self.exif.block())
        palette = chunk(b"PLTE", bytes(range(256)) * 3)
        parts = [palette, idat, more] if self.behind else [palette, more, idat]
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(parts)[: LARGEST - 100] + chunk(b"IEND", b"")


def _chunk_of(kind: str, length: int) -> bytes:
    text = b"a" * length
    bodies: dict[str, Callable[[], bytes]] = {
        "zTXt": lambda: b"k\0\0" + zlib.compress(text, 9),
        "iTXt": lambda: b"k\0\1\0\0\0" + zlib.compress("é😀".encode() + text, 9),
        "iCCP": lambda: b"k\0\0" + zlib.compress(text, 9),
        "tEXt": lambda: b"k\0" + text,
        "tRNS": lambda: text[:6].ljust(6, b"\0"),
        "profile": lambda: b"Raw profile type exif\0" + b"\n" * length,
    }
    return chunk(b"tEXt" if kind == "profile" else kind.encode(), bodies.get(kind, lambda: text)())


PNGS = st.builds(
    Png,
    SIZES,
    CONTENTS,
    st.sampled_from([(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (1, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6)]),
    st.sampled_from([0, 1, 2, 3, 4]),
    st.booleans(),
    st.sampled_from([0, 0, 8000, 100_000, 1_000_000]),
    st.sampled_from([2**20, 8192, 10, 1]),
    st.lists(
        st.tuples(
            st.sampled_from(["zTXt", "iTXt", "iCCP", "tEXt", "tRNS", "profile", "juNk", "eXIf", "fcTL", "IDAT"]),
            st.sampled_from([0, 1, 100, 10_000, 1_000_000]),
            COUNTS,
        ),
        max_size=3,
    ).map(tuple),
    EXIFS,
    st.booleans(),
)


# GIF


def sub_blocks(data: bytes, length: int) -> bytes:
    return b"".join(bytes([len(data[at : at + length])]) + data[at : at + length] for at in range(0, len(data), length))


@dataclass(frozen=True)
class Gif:
    canvas: tuple[int, int]
    frame: tuple[int, int]
    content: str
    extensions: tuple[tuple[int, int, int, int], ...] = ()  # label, blocks, length of a block, how often
    clears: int = 0  # codes before the image that say nothing
    block: int = 255
    interlaced: bool = False
    gap: int = 0
    frames: int = 1

    def build(self) -> bytes:
        whole = encoded(self.frame, self.content, "L", "GIF", interlace=self.interlaced)
        start = 13 + (3 << (whole[10] & 7) + 1 if whole[10] & 0x80 else 0)
        while whole[start] != 0x2C:  # an extension: its blocks are passed over
            start += 2
            while whole[start]:
                start += 1 + whole[start]
            start += 1
        local = whole[start : start + 9] + bytes([whole[start + 9] & 0x40])
        bits = Bits()
        bits.put(*((256, 9) for _ in range(8)))
        clears = bits.done() * (self.clears // 8)
        at, stream = start + 11, b""
        while whole[at]:
            stream += whole[at + 1 : at + 1 + whole[at]]
            at += 1 + whole[at]
        image = local + whole[start + 10 : start + 11] + sub_blocks(clears + stream, self.block) + b"\0"
        more = b"".join(
            (b"!" + bytes([label]) + (bytes([length]) + b"x" * length) * blocks + b"\0")
            * min(count, 1 + 4 * 10**6 // (3 + blocks * (length + 1)))
            for label, blocks, length, count in self.extensions
        )
        head = b"GIF89a" + struct.pack("<HHBBB", *self.canvas, 0xF7, 0, 0) + bytes(range(256)) * 3
        return cut(head + more + b"\1" * self.gap + image * self.frames) + b";"


GIFS = st.builds(
    Gif,
    SIZES,
    SIZES,
    CONTENTS,
    st.lists(
        st.tuples(
            st.sampled_from([0x01, 0xF9, 0xFE, 0xFF]),
            st.sampled_from([0, 1, 100, 10_000, 500_000]),
            st.sampled_from([1, 4, 255]),
            COUNTS,
        ),
        max_size=3,
    ).map(tuple),
    st.sampled_from([0, 0, 8000, 1_000_000]),
    st.sampled_from([255, 255, 10, 1]),
    st.booleans(),
    st.sampled_from([0, 0, 1000, 500_000]),
    st.sampled_from([1, 2, 100]),
)


# BMP


@dataclass(frozen=True)
class Bmp:
    size: tuple[int, int]
    bits: int
    compression: int
    runs: str  # what the run-length coded pixels consist of
    count: int  # how often
    header: int = 40
    colours: int = 0

    def build(self) -> bytes:
        palette = bytes(range(256)) * 4 if self.bits <= 8 else b""
        unit = {
            "runs": b"\xff\1",
            "ones": b"\1\1",
            "ends": b"\0\0",
            "gaps": b"\1\1\0\0",
            "deltas": b"\0\2\xff\xff",
            "still": b"\0\2\0\0",
            "absolute": b"\0\x03abc\0",
            "nothing": b"\0\xff" + bytes(256),
        }[self.runs]
        if self.compression:
            body = unit * min(self.count, LARGEST // 2 // len(unit))
        else:
            body = bytes(min(LARGEST // 2, (self.size[0] * self.bits + 31) // 32 * 4 * self.size[1]))
        offset = 14 + self.header + len(palette)
        head = struct.pack(
            "<IiiHHIIiiII", self.header, *self.size, 1, self.bits, self.compression, 0, 0, 0, self.colours, 0
        )
        return (
            b"BM"
            + struct.pack("<IHHI", 0, 0, 0, offset)
            + head.ljust(self.header, b"\0")[: self.header]
            + palette
            + body
        )


BMPS = st.builds(
    Bmp,
    SIZES,
    st.sampled_from([1, 4, 8, 16, 24, 32]),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from(["runs", "ones", "ends", "gaps", "deltas", "still", "absolute", "nothing"]),
    st.sampled_from([0, 100, 10_000, 200_000, 1_000_000, 5_000_000]),
    st.sampled_from([12, 40, 56, 108, 124]),
    st.sampled_from([0, 2, 256, 65536]),
)


# TIFF


@dataclass(frozen=True)
class Tiff:
    size: tuple[int, int]
    content: str
    photometric: int = 1
    bits: int = 8
    samples: int = 1
    compression: int = 1
    rows: int = 0  # of a strip; 0: all
    tile: tuple[int, int] | None = None
    planar: int = 1
    listed: int = 0  # strips or tiles that are listed; 0: as many as there are
    shared: bool = False  # they have the same bytes
    empty: int = 0  # deflate blocks that say nothing
    scans: int = 0
    tags: tuple[tuple[int, int, int], ...] = ()  # number, type, count
    many: int = 0  # tags that nobody knows
    nested: Exif | None = None

    def build(self) -> bytes:
        width, height = self.size
        across, down = self.tile or (width, min(self.rows or height, height))
        planes = self.samples if self.planar == 2 else 1
        parts = -(-width // across) * -(-height // down) * planes
        listed = min(self.listed or parts, 400_000)
        part = self._part(across, down, self.samples // planes)
        bodies = [part] if self.shared else [part] * max(1, min(listed, 2 * 10**6 // max(1, len(part))))
        base = 8
        tags = [
            (256, 4, 1, struct.pack("<I", width)),
            (257, 4, 1, struct.pack("<I", height)),
            (258, 3, self.samples, struct.pack("<H", self.bits) * self.samples),
            (259, 3, 1, struct.pack("<H", self.compression)),
            (262, 3, 1, struct.pack("<H", self.photometric)),
            (277, 3, 1, struct.pack("<H", self.samples)),
            (284, 3, 1, struct.pack("<H", self.planar)),
        ]
        if self.tile:
            tags += [(322, 4, 1, struct.pack("<I", across)), (323, 4, 1, struct.pack("<I", down))]
        else:
            tags.append((278, 4, 1, struct.pack("<I", down)))
        if self.samples in {2, 4} and self.photometric in {1, 2}:
            tags.append((338, 3, 1, struct.pack("<H", 2)))
        if self.photometric == 3:
            tags.append((320, 3, 768, bytes(1536)))
        tags += [(tag, kind, count, b"\1\0\0\0" * (2 * count + 1)) for tag, kind, count in self.tags]
        tags += [(45000 + number, 3, 1, b"\1\0") for number in range(self.many)]
        names = (324, 325) if self.tile else (273, 279)
        nested = b""
        if self.nested:
            tags.append((34665, 4, 1, bytes(4)))
        taken = {tag[0]: tag for tag in tags}
        tags = list(taken.values())
        first = 8 + 2 + 12 * (len(tags) + 2) + 4
        out_of_line = sum(len(value) for *_, value in tags if len(value) > 4) + (8 * listed if listed > 1 else 0)
        start = first + out_of_line
        if self.nested:
            at = start + sum(map(len, bodies))
            count = self.nested.count
            inner = [(40000, self.nested.kind, count, bytes(8 * count))]
            inner += [(40001 + number, 3, 1, b"\1\0") for number in range(self.nested.tags)]
            nested = b"".join(tiff_tags(inner, at))
            tags = [tag if tag[0] != 34665 else (34665, 4, 1, struct.pack("<I", at)) for tag in tags]
        places = [start + (number % len(bodies)) * len(part) for number in range(listed)]
        tags.append((names[0], 4, listed, struct.pack(f"<{listed}I", *places)))
        tags.append((names[1], 4, listed, struct.pack("<I", len(part)) * listed))
        front, back = tiff_tags(tags, base)
        return b"II*\0\x08\0\0\0" + front + back + b"".join(bodies) + nested

    def _part(self, across: int, down: int, samples: int) -> bytes:
        row = (across * self.bits * samples + 7) // 8
        down = min(down, 1 + 60 * 10**6 // max(1, row))
        if self.compression == 7:
            mode = "L" if samples == 1 else "RGB"
            size = min(across, 4000), min(down, 4000)
            data = encoded(size, self.content, mode, "JPEG", progressive=self.scans > 0, quality=50)
            scan = data.rindex(b"\xff\xda")
            return data[:-2] + data[scan:-2] * self.scans + b"\xff\xd9"
        raw = pixels((row, down), self.content, 1).tobytes()
        if self.compression == 8:
            return deflated(raw, self.empty)
        if self.compression == 32773:
            return b"".join(b"\x7f" + raw[at : at + 128].ljust(128, b"\0") for at in range(0, len(raw), 128))
        if self.compression in {2, 3, 4, 5}:
            return noise(min(len(raw), 10**6)) + bytes(100)
        return raw


TIFF_KINDS = [
    (0, 1, 1),
    (1, 8, 1),
    (1, 12, 1),
    (1, 16, 1),
    (1, 8, 2),
    (2, 8, 3),
    (2, 16, 3),
    (2, 8, 4),
    (3, 8, 1),
    (5, 8, 4),
]
TIFFS = st.builds(
    lambda kind, size, content, *rest: Tiff(size, content, *kind, *rest),
    st.sampled_from([*TIFF_KINDS, (6, 8, 3)]),  # photometric interpretation, bits and samples that go together
    SIZES,
    CONTENTS,
    st.sampled_from([1, 2, 3, 4, 5, 7, 8, 32773]),
    st.sampled_from([0, 1, 2, 7, 999]),
    st.none() | st.tuples(st.sampled_from([16, 256, 4096]), st.sampled_from([16, 256, 4096])),
    st.sampled_from([1, 2]),
    st.sampled_from([0, 0, 0, 1, 100, 30_000, 400_000]),
    st.booleans(),
    st.sampled_from([0, 0, 8000, 400_000]),
    st.sampled_from([0, 0, 5, 95]),
    st.lists(
        st.tuples(
            st.sampled_from([254, 266, 274, 282, 296, 320, 330, 338, 339, 530, 532, 700, 34675, 34853]),
            st.sampled_from([1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]),
            st.sampled_from([1, 2, 1000, 60_000, 300_000]),
        ),
        max_size=2,
    ).map(tuple),
    st.sampled_from([0, 0, 100, 3000]),
    st.none()
    | st.builds(
        Exif,
        st.just(0),
        st.sampled_from([3, 5, 7, 12]),
        st.sampled_from([1, 60_000, 300_000]),
        st.sampled_from([0, 20_000]),
    ),
)


# WebP


def webp_lossless(size: tuple[int, int], groups: int, block: int) -> bytes:
    """With so many groups of prefix codes (RFC 9649, 3.7.2), each for squares of 2**`block` pixels a side."""
    across, down = ((side + (1 << block) - 1) >> block for side in size)
    groups = max(1, min(groups, across * down, 2**16))
    bits = Bits()
    bits.put((0x2F, 8), (size[0] - 1, 14), (size[1] - 1, 14), (0, 1), (0, 3), (0, 2), (1, 1), (block - 2, 3), (0, 1))
    for _ in range(2):  # green and red: 256 symbols of 8 bits
        bits.put((0, 1), (8, 4), *((int(place == 11), 3) for place in range(12)), (1, 1), (3, 3), (254, 8))
    bits.put(*((1, 4) for _ in range(3)))
    bits.put(*(pair for at in range(across * down) for pair in ((at % groups & 255, 8), (at % groups >> 8, 8))))
    bits.put(*((1, 4) for _ in range(5 * groups)))
    return bits.done() + bytes(16)


@dataclass(frozen=True)
class Webp:
    size: tuple[int, int]
    content: str = "flat"
    coding: str = "lossless"  # or lossy, alpha, groups
    groups: int = 0
    block: int = 2
    chunks: tuple[tuple[str, int, int], ...] = ()  # name, length, how often
    exif: Exif | None = None
    frames: int = 1
    quality: int = 80

    def build(self) -> bytes:
        if self.coding == "groups":
            body = webp_lossless(self.size, self.groups, self.block)
            body += bytes(len(body) % 2)
            data = b"RIFF\0\0\0\0WEBPVP8L" + struct.pack("<I", len(body)) + body
        else:
            mode = "RGBA" if self.coding != "lossy" else "RGB"
            small = (min(self.size[0], 1000), min(self.size[1], 1000))
            options: dict[str, object] = {"lossless": self.coding == "lossless", "quality": self.quality, "method": 0}
            if self.frames > 1:
                image = Image.frombytes(mode, small, pixels(small, self.content, len(mode)).tobytes())
                others = [Image.new(mode, small, (number % 256, 0, 0)) for number in range(self.frames - 1)]
                options |= {"save_all": True, "append_images": others}
                buffer = io.BytesIO()
                image.save(buffer, "WEBP", **options)
                data = buffer.getvalue()
            else:
                data = encoded(small, self.content, mode, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", **options)
        more = b"".join(
            (name.encode() + struct.pack("<I", length) + bytes(length + length % 2)) * count
            for name, length, count in self.chunks
        )
        if self.exif:
            block = self.exif.block()
            more = b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2) + more
        whole = bytearray(cut(data + more))
        whole[4:8] = struct.pack("<I", len(whole) - 8)
        return bytes(whole)


WEBPS = st.builds(
    Webp,
    SIZES,
    CONTENTS,
    st.sampled_from(["lossless", "lossy", "alpha", "groups"]),
    st.sampled_from([1, 300, 5000, 65536]),
    st.sampled_from([2, 3, 5, 9]),
    st.lists(
        st.tuples(st.sampled_from(["juNk", "ICCP", "XMP ", "ANMF", "ALPH", "VP8L"]), LENGTHS, COUNTS), max_size=2
    ).map(tuple),
    EXIFS,
    st.sampled_from([1, 1, 3, 30]),
    st.sampled_from([5, 80, 100]),
)

RECIPES = {"JPEG": JPEGS, "PNG": PNGS, "GIF": GIFS, "BMP": BMPS, "TIFF": TIFFS, "WEBP": WEBPS}


def shown(recipe: object) -> str:
    """The recipe as code, without what is as usual."""
    kept = [
        f"{field.name}={getattr(recipe, field.name)!r}"
        for field in fields(recipe)  # type: ignore[arg-type]
        if getattr(recipe, field.name) != field.default
    ]
    return f"{type(recipe).__name__}({', '.join(kept)})"
