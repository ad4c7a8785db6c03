"""PNG (third edition, W3C): chunks, which Pillow reads in Python, texts and profiles, which it unpacks, and pixels."""

import struct
import zlib
from dataclasses import dataclass

from bundle.formats.directory import add_exif
from bundle.formats.work import Header, Work

MAX_TEXTS = 100
_SECONDS_A_CHUNK, _BYTES_A_CHUNK = 12e-6, 100
_SECONDS_A_TEXT, _SECONDS_AN_UNPACKED_BYTE = 3e-5, 5e-9
_TEXT_BYTES = 2**20  # Pillow unpacks at most so many of each
_LARGEST_RATIO = 1032  # of deflate
_SECONDS_A_PIXEL, _SECONDS_A_FILTERED_BYTE, _SECONDS_A_BYTE = 6e-9, 6e-9, 3e-8
_SECONDS_AN_EMPTY_BYTE, _USUAL_EXCESS = 1.5e-7, 2**16
_SECONDS_A_PROFILE_BYTE = 1e-7  # read as hexadecimal digits in lines
_SECONDS_OF_ALPHA, _SECONDS_OF_TURNING = 20e-9, 12e-9  # a pixel
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COMPRESSED = frozenset({b"iCCP", b"iTXt", b"zTXt"})
_TEXTS = _COMPRESSED | {b"tEXt"}
_WITH_ALPHA = frozenset({4, 6})
_PIXELS = frozenset({b"IDAT", b"DDAT", b"fdAT"})  # Pillow takes them for one another


@dataclass(slots=True)
class _Seen:
    """What the chunks say of the pixels."""

    size: tuple[int, int] = (0, 0)
    bits: int = 8
    colour: int = 2
    alpha: bool = False
    exif: bool = False
    texts: int = 0
    packed: int = 0  # bytes of the first image's pixels
    whole: bool = False  # they have ended

    def add(self, kind: bytes, body: memoryview, work: Work) -> None:
        """A chunk that has no pixels."""
        self.whole = self.packed > 0
        if kind == b"IHDR":
            width, height, self.bits, self.colour = struct.unpack_from(">IIBB", body)
            self.size = width, height
            work.check_size(self.size)
        elif kind in _TEXTS:
            self.texts += kind in _COMPRESSED
            if self.texts > MAX_TEXTS:
                work.refuse(f"more than {MAX_TEXTS} compressed texts and profiles")
            self.exif |= _add_text(kind, bytes(body), work)
        elif kind == b"eXIf":
            self.exif = True
            work.add("EXIF", 0, 3 * len(body))
            add_exif(bytes(body), work)
        else:
            self.alpha |= kind == b"tRNS"
            work.add("data that is no image", 0, len(body) + _BYTES_A_CHUNK)

    def header(self) -> Header:
        pixels = self.size[0] * self.size[1]
        a_pixel = _SECONDS_A_PIXEL + _CHANNELS.get(self.colour, 4) * self.bits / 8 * _SECONDS_A_FILTERED_BYTE
        if self.alpha or self.colour in _WITH_ALPHA:
            a_pixel += _SECONDS_OF_ALPHA
        if self.exif:
            a_pixel += _SECONDS_OF_TURNING
        return Header(self.size, pixels * a_pixel + self.packed * _SECONDS_A_BYTE)


def walk(data: bytes, work: Work) -> Header:
    """Raises `struct.error` where there is no header, `ValueError` where there is no end, `ImageRefused`."""
    seen, view, position, chunks = _Seen(), memoryview(data), 8, 0
    while position + 8 <= len(data):
        (length,), kind = struct.unpack_from(">I", data, position), data[position + 4 : position + 8]
        chunks += 1
        if not chunks % 1000:
            work.add("chunks", 1000 * _SECONDS_A_CHUNK)
        if kind in _PIXELS:
            if not seen.whole:
                seen.packed += min(length, len(data) - position)
        elif kind == b"IEND":
            break
        else:
            seen.add(kind, view[position + 8 : position + 8 + length], work)
        position += 12 + length
    work.add("chunks", chunks % 1000 * _SECONDS_A_CHUNK)
    work.check_size(seen.size)
    if data.rfind(b"IEND\xae\x42\x60\x82") < 0:
        raise ValueError("truncated: no IEND chunk")
    _add_packed(seen, work)
    return seen.header()


def _add_packed(seen: _Seen, work: Work) -> None:
    """Deflate can take much longer for a byte that stands for no pixel."""
    rows = seen.size[1] * (1 + seen.size[0] * _CHANNELS.get(seen.colour, 4) * seen.bits // 8)
    excess = seen.packed - rows - rows // 8 - _USUAL_EXCESS
    if excess > 0:
        work.add("packed data that is no image", excess * _SECONDS_AN_EMPTY_BYTE)


def _add_text(kind: bytes, body: bytes, work: Work) -> bool:
    """Whether it may hold an EXIF block, as ImageMagick writes it."""
    compressed = kind in {b"zTXt", b"iCCP"} or (kind == b"iTXt" and body.partition(b"\0")[2][:1] != b"\0")
    unpacked = min(_TEXT_BYTES, len(body) * _LARGEST_RATIO) if compressed else len(body)
    width = 5 if kind == b"iTXt" else 2  # bytes a character
    seconds = _SECONDS_A_TEXT
    if compressed:
        seconds += unpacked * _SECONDS_AN_UNPACKED_BYTE + len(body) * _SECONDS_AN_EMPTY_BYTE
    work.add("texts", seconds, unpacked * width)
    keyword, _, rest = body.partition(b"\0")
    if kind == b"iCCP" or keyword not in {b"exif", b"Raw profile type exif"}:
        return False
    if keyword == b"exif":
        add_exif(rest, work)
        return True
    rest = rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else rest[kind == b"zTXt" :]
    if compressed:
        rest = _unpacked(rest)
    _add_raw_profile(rest, work)
    return True


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _TEXT_BYTES)
    except zlib.error:
        return b""


def _add_raw_profile(text: bytes, work: Work) -> None:
    work.add("EXIF profiles", len(text) * _SECONDS_A_PROFILE_BYTE)
    if len(text) > _TEXT_BYTES:
        work.refuse("an EXIF profile of over a megabyte")
    try:
        add_exif(bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])), work)
    except ValueError:
        return  # Pillow finds no orientation in it either
