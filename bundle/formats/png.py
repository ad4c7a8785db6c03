"""PNG (third edition, W3C): chunks, which Pillow reads in Python, texts and profiles, which it unpacks, and pixels."""

import struct
import zlib

from bundle.formats.directory import add_exif
from bundle.formats.work import Header, Work

MAX_TEXTS = 100
_SECONDS_A_CHUNK, _BYTES_A_CHUNK = 6e-6, 100
_SECONDS_A_TEXT, _TEXT_BYTES = 5e-3, 2**20  # Pillow unpacks at most a megabyte of each
_LARGEST_RATIO = 1032  # of deflate
_SECONDS_A_PIXEL, _SECONDS_A_FILTERED_BYTE, _SECONDS_A_BYTE = 6e-9, 2.5e-9, 1e-8
_SECONDS_OF_ALPHA, _SECONDS_OF_TURNING = 20e-9, 12e-9  # a pixel
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_COMPRESSED = frozenset({b"iCCP", b"iTXt", b"zTXt"})
_TEXTS = frozenset({b"tEXt", b"iTXt", b"zTXt"})
_PIXELS = frozenset({b"IDAT", b"fdAT"})


def walk(data: bytes, work: Work) -> Header:
    """Raises `struct.error` where there is no header, `ValueError` where there is no end, `ImageTooCostly`."""
    size, bits, colour, alpha, exif, texts = (0, 0), 8, 2, False, False, 0
    position = 8
    chunks = 0
    while position + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        chunks += 1
        if not chunks % 1000:
            work.add("chunks", 1000 * _SECONDS_A_CHUNK)
        if kind not in _PIXELS:
            work.add("chunks", 0, _BYTES_A_CHUNK)
            body = data[position + 8 : position + 8 + min(length, 13)]
            if kind == b"IHDR":
                width, height, bits, colour = struct.unpack_from(">IIBB", body)
                size = width, height
                work.check_size(size)
            elif kind == b"IEND":
                break
            elif kind in _COMPRESSED or kind in _TEXTS:
                texts += kind in _COMPRESSED
                if texts > MAX_TEXTS:
                    work.refuse(f"more than {MAX_TEXTS} compressed texts and profiles")
                exif |= _add_text(kind, data[position + 8 : position + 8 + length], work)
            elif kind == b"eXIf":
                exif = True
                work.add("EXIF", 0, 3 * min(length, len(data)))
                add_exif(data[position + 8 : position + 8 + length], work)
            else:
                alpha |= kind == b"tRNS"
                work.add("data that is no image", 0, min(length, len(data)))
        position += 12 + length
    work.add("chunks", chunks % 1000 * _SECONDS_A_CHUNK)
    if data.rfind(b"IEND\xae\x42\x60\x82") < 0:
        raise ValueError("truncated: no IEND chunk")
    work.check_size(size)
    return Header(size, _seconds(size, bits, colour, alpha or colour >= 4, exif) + len(data) * _SECONDS_A_BYTE)


def _seconds(size: tuple[int, int], bits: int, colour: int, alpha: bool, exif: bool) -> float:
    a_pixel = _SECONDS_A_PIXEL + _CHANNELS.get(colour, 4) * bits / 8 * _SECONDS_A_FILTERED_BYTE
    if alpha:
        a_pixel += _SECONDS_OF_ALPHA
    if exif:
        a_pixel += _SECONDS_OF_TURNING
    return size[0] * size[1] * a_pixel


def _add_text(kind: bytes, body: bytes, work: Work) -> bool:
    """Whether it may hold an EXIF block, as ImageMagick writes it."""
    compressed = kind in {b"zTXt", b"iCCP"} or (kind == b"iTXt" and body.partition(b"\0")[2][:1] != b"\0")
    unpacked = min(_TEXT_BYTES, len(body) * _LARGEST_RATIO) if compressed else len(body)
    width = 5 if kind == b"iTXt" else 2  # bytes a character
    seconds = unpacked / _TEXT_BYTES * _SECONDS_A_TEXT if compressed else 0
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
    work.add("lines of its EXIF profile", text.count(b"\n") * 1e-7, 100 * text.count(b"\n"))
    if len(text) > _TEXT_BYTES:
        work.refuse("an EXIF profile of over a megabyte")
    try:
        add_exif(bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:])), work)
    except ValueError:
        return  # Pillow finds no orientation in it either
