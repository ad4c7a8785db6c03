"""Small files that ask for much: of memory, by what their headers claim or their streams expand to, or of work."""

import functools
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from tests.bundle.conftest import _chunk as chunk
from tests.bundle.conftest import _encode as encode
from tests.bundle.conftest import _tiff as tiff
from tests.faults.recipes import Bmp, Exif, Gif, Jpeg, Png, Tiff, Webp

BILLION = (40_000, 25_000)
MEGABYTE, GIGABYTE = bytes(2**20), 1024  # the latter in blocks of the former
SIGNATURE, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
LIMIT = 50_000_000  # pixels that a server takes by default
SQUARE = (7071, 7071)  # just under it
WIDE = (70_700, 707)  # likewise, one side a hundred times as long as the other
ROTATED = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)

Make = Callable[[], bytes]
Recipe = Bmp | Gif | Jpeg | Png | Tiff | Webp


@functools.cache
def deflated(block: bytes, count: int) -> bytes:
    """What zlib would make of `count` blocks, in no time: a block after a full flush is coded the same every time."""
    coder = zlib.compressobj(9)
    first = coder.compress(block) + coder.flush(zlib.Z_FULL_FLUSH)
    again = coder.compress(block) + coder.flush(zlib.Z_FULL_FLUSH)
    check = 1
    for _ in range(count):
        check = zlib.adler32(block, check)
    return first + again * (count - 1) + b"\3\0" + struct.pack(">I", check)


def png(size: tuple[int, int], kind: tuple[int, int], stream: bytes, *chunks: bytes, interlaced: bool = False) -> bytes:
    """`kind` is bit depth and colour type, `stream` the pixels as zlib packs them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, *kind, 0, 0, interlaced))
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IDAT", stream) + END


def rows(width: int, count: int, pixel: bytes) -> bytes:
    return deflated(b"\0" + pixel * width, count)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(*front: bytes, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    """Red, with these segments before all others."""
    data = encode(Image.new("RGB", size, "red"), "JPEG", **options)
    return data[:2] + b"".join(front) + data[2:]


def jpeg_of(size: tuple[int, int], scans: int) -> bytes:
    """Progressive, with its last scan once more and again."""
    data = encode(Image.new("L", size, 128), "JPEG", progressive=True, quality=50)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[scan:end] * scans + data[end:]


def jpeg_claiming(width: int, height: int, **options: Any) -> bytes:
    data = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG", **options))
    frame = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def mpo(count: int) -> bytes:
    pictures = [Image.new("RGB", (64, 64), "red") for _ in range(count)]
    return encode(pictures[0], "MPO", save_all=True, append_images=pictures[1:])


def mpo_claiming(count: int) -> bytes:
    """Of two pictures, says that it holds `count`."""
    data = bytearray(mpo(2))
    entry = data.index(struct.pack("<HHI", 0xB001, 4, 1))
    data[entry + 8 : entry + 12] = struct.pack("<I", count)
    return bytes(data)


def gif(canvas: tuple[int, int], frames: int = 1, before: bytes = b"", frame: tuple[int, int] = (1, 1)) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)
    picture = b"!\xf9\4\x08\1\0\0\0," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x44\1\0"
    return screen + before + picture * frames + b";"


def bmp(size: tuple[int, int], bits: int, compression: int, body: bytes) -> bytes:
    palette = bytes(4 << bits) if bits <= 8 else b""
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body


def webp_claiming(width: int, height: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def webp_lossless_claiming(width: int, height: int) -> bytes:
    data = bytearray(encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    start = data.index(b"VP8L") + 9
    data[start : start + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


def webp_animated(frames: int) -> bytes:
    pictures = [Image.new("RGB", (8, 8), (number % 256, number // 256, 0)) for number in range(frames)]
    return encode(pictures[0], "WEBP", save_all=True, append_images=pictures[1:], lossless=True)


def strips(count: int, stream: bytes, width: int) -> bytes:
    """A deflated TIFF of `count` rows, every one of them the same bytes of the file."""
    body = bytes(8) + stream + bytes(len(stream) % 2)
    places, lengths = struct.pack("<I", 16) * count, struct.pack("<I", len(stream)) * count
    at = 8 + len(body)
    data = tiff(
        (width, count), 8, body + places + lengths, (259, 3, 8), (273, 4, at), (278, 4, 1), (279, 4, at + 4 * count)
    )
    for tag in (273, 279):
        data = data.replace(struct.pack("<HHI", tag, 4, 1), struct.pack("<HHI", tag, 4, count))
    return data


def directories(count: int) -> bytes:
    """A TIFF of so many pages of nothing."""
    page = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 1), (277, 1), (278, 8), (279, 64)]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in page)
    size = 2 + len(entries) + 4
    pages = [
        struct.pack("<H", len(page)) + entries + struct.pack("<I", 8 + (number + 1) * size) for number in range(count)
    ]
    return b"II*\0\x08\0\0\0" + b"".join(pages)[:-4] + bytes(4)


def entries_of(count: int, length: int) -> bytes:
    """The entries of `count` tags of nobody's, each of `length` bytes, all from the same place on."""
    return b"".join(struct.pack("<HHII", 1000 + number, 7, length, 8) for number in range(count))


def many_tags(count: int, length: int) -> bytes:
    data = tiff((64, 64), 8, bytes(length))
    usual = 9
    at = 8 + length
    entries = data[at + 2 : at + 2 + 12 * usual] + entries_of(count, length)
    return data[:at] + struct.pack("<H", usual + count) + entries + bytes(4)


def exif_of(count: int, length: int) -> bytes:
    """The same in a PNG's EXIF block."""
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries_of(count, length) + bytes(length)
    return red_png(chunk(b"eXIf", block))


def red_png(*chunks: bytes) -> bytes:
    return png((64, 64), (8, 2), rows(64, 64, b"\xff\0\0"), *chunks)


CLAIMS: dict[str, Make] = {
    "PNG": lambda: png(BILLION, (8, 2), b""),
    "PNG of 2**62 pixels": lambda: png((2**31 - 1, 2**31 - 1), (16, 6), b""),
    "PNG interlaced": lambda: png(BILLION, (8, 6), b"", interlaced=True),
    "PNG animated": lambda: png(
        BILLION,
        (8, 2),
        b"",
        chunk(b"acTL", struct.pack(">II", 2**30, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *BILLION, 0, 0, 1, 1, 2, 1)),
    ),
    "GIF": lambda: gif(BILLION),
    "GIF of 2**32 pixels": lambda: gif((65535, 65535)),
    "GIF whose frame outgrows it": lambda: gif((1, 1), frame=(65535, 65535)),
    "BMP": lambda: bmp(BILLION, 24, 0, bytes(99)),
    "BMP of 2**62 pixels": lambda: bmp((2**31 - 1, 2**31 - 1), 32, 0, bytes(99)),
    "BMP top-down": lambda: bmp((40_000, -25_000), 24, 0, bytes(99)),
    "BMP of one bit": lambda: bmp(BILLION, 1, 0, bytes(99)),
    "BMP run-length": lambda: bmp(BILLION, 8, 1, b"\xff\1" * 99),
    "TIFF": lambda: tiff(BILLION, 8, bytes(30)),
    "TIFF of 2**64 pixels": lambda: tiff((2**32 - 1, 2**32 - 1), 8, bytes(30)),
    "TIFF deflated": lambda: tiff(BILLION, 8, deflated(MEGABYTE, 64), (259, 3, 8)),
    "TIFF tiles": lambda: tiff((9, 9), 8, bytes(30), (322, 4, 40_000), (323, 4, 25_000), (324, 4, 8), (325, 4, 30)),
    "TIFF of 60,000 samples": lambda: tiff((64, 64), 8, bytes(30), (277, 3, 60_000)),
    "WebP": lambda: webp_claiming(*BILLION),
    "WebP of 2**28 pixels": lambda: webp_lossless_claiming(16383, 16383),
    "JPEG": lambda: jpeg_claiming(*BILLION),
    "JPEG of 2**32 pixels": lambda: jpeg_claiming(65535, 65535),
    "JPEG progressive": lambda: jpeg_claiming(65535, 65535, progressive=True),
    "too wide for its height": lambda: png((LIMIT, 1), (8, 2), b""),
    "one pixel over the limit": lambda: png((LIMIT + 1, 1), (8, 0), b""),
    "one row over the limit": lambda: jpeg_claiming(7072, 7072),
}
"""Headers of pictures that are larger or longer than any limit allows; each must be refused."""

EXPANDING: dict[str, Make] = {
    "PNG pixels": lambda: png((64, 64), (8, 2), deflated(MEGABYTE, GIGABYTE)),
    "PNG zTXt": lambda: red_png(chunk(b"zTXt", b"x\0\0" + deflated(MEGABYTE, GIGABYTE))),
    "PNG iTXt": lambda: red_png(chunk(b"iTXt", b"x\0\1\0\0\0" + deflated(MEGABYTE, GIGABYTE))),
    "PNG iCCP": lambda: red_png(chunk(b"iCCP", b"x\0\0" + deflated(MEGABYTE, GIGABYTE))),
    "PNG zTXt of a megabyte, often": lambda: red_png(
        *(chunk(b"zTXt", b"%d\0\0" % number + deflated(MEGABYTE, 1)) for number in range(1000))
    ),
    "PNG bomb inside a bomb": lambda: red_png(
        chunk(b"zTXt", b"x\0\0" + zlib.compress(deflated(MEGABYTE, GIGABYTE), 9)),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(zlib.compress(deflated(MEGABYTE, GIGABYTE), 9))),
    ),
    "PNG EXIF tags that share their bytes": lambda: exif_of(1000, 2_000_000),
    "PNG of 20,000 empty pixel chunks": lambda: red_png()[: -len(END)] + chunk(b"IDAT", b"") * 20_000 + END,
    "PNG of a billion animation frames": lambda: red_png(
        chunk(b"acTL", struct.pack(">II", 10**9, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 64, 0, 0, 1, 1, 2, 1)),
    ),
    "TIFF deflated strip": lambda: tiff((64, 64), 8, deflated(MEGABYTE, GIGABYTE), (259, 3, 8)),
    "TIFF of 20,000 pages": lambda: directories(20_000),
    "TIFF pages in a circle": lambda: directories(2)[:-4] + struct.pack("<I", 8),
    "TIFF tags that share their bytes": lambda: many_tags(1000, 2_000_000),
    "GIF of 100,000 frames": lambda: gif((64, 64), 100_000),
    "GIF of 20,000 comments": lambda: gif((64, 64), before=b"!\xfe\1x\0" * 20_000),
    "GIF of 100,000 extensions": lambda: gif((64, 64), before=b"!\1\1x\0" * 100_000),
    "WebP of 500 frames": lambda: webp_animated(500),
    "JPEG of 490 scans": lambda: jpeg_of((64, 64), 480),
    "JPEG of 50,000 scans": lambda: jpeg_of((64, 64), 50_000),
    "JPEG restarting after every block": lambda: jpeg(size=(512, 512), restart_marker_blocks=1),
    "JPEG of 100,000 fill bytes": lambda: jpeg(b"\xff" * 100_000),
    "JPEG of 20,000 comments": lambda: jpeg(segment(0xFE, b"") * 20_000),
    "JPEG of 1,000 tables": lambda: jpeg(segment(0xDB, (b"\0" + b"\1" * 64) * 100) * 10),
    "JPEG of 255 profiles in one": lambda: jpeg(
        *(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(4000)) for n in range(1, 256))
    ),
    "MPO of 50 pictures": lambda: mpo(50),
    "MPO of four billion pictures": lambda: mpo_claiming(2**32 - 1),
    "MPO inside MPO": lambda: jpeg(*(segment(0xE2, b"MPF\0" + mpo(2)[:60_000]) for _ in range(20))),
    "BMP of deltas": lambda: bmp((255, 10_000), 8, 1, b"\0\2\xff\xff" * 50),
}
"""Pictures of few pixels that could unfold to gigabytes; each may be refused or answered."""

AT_THE_LIMIT: dict[str, Make] = {
    "PNG": lambda: png(SQUARE, (8, 2), rows(*SQUARE, b"\xff\0\0")),
    "PNG with alpha, to be turned": lambda: png(
        SQUARE, (8, 6), rows(*SQUARE, b"\xff\0\0\xfe"), chunk(b"eXIf", ROTATED)
    ),
    "PNG of 16 bits with alpha": lambda: png(SQUARE, (16, 6), rows(*SQUARE, b"\xff\xff\0\0\0\0\xff\xfe")),
    "PNG of 16 bits of grey, one of them transparent, to be turned": lambda: png(
        SQUARE, (16, 0), rows(*SQUARE, b"\x80\0"), chunk(b"tRNS", b"\x80\0"), chunk(b"eXIf", ROTATED)
    ),
    "PNG of a palette": lambda: png(
        SQUARE, (8, 3), rows(*SQUARE, b"\0"), chunk(b"PLTE", b"\xff\0\0" * 256), chunk(b"tRNS", b"\xfe\xfd")
    ),
    "PNG as wide as can be": lambda: png(WIDE, (8, 2), rows(*WIDE, b"\xff\0\0")),
    "PNG as high as can be": lambda: png(WIDE[::-1], (8, 0), rows(*WIDE[::-1], b"\x80")),
    "JPEG": lambda: encode(Image.new("RGB", SQUARE, "red"), "JPEG"),
    "JPEG progressive, restarting": lambda: encode(
        Image.new("L", SQUARE, 128), "JPEG", progressive=True, restart_marker_blocks=8
    ),
    "JPEG of four inks": lambda: encode(Image.new("CMYK", SQUARE), "JPEG"),
    "GIF, part of it transparent": lambda: encode(Image.new("P", SQUARE, 1), "GIF", transparency=0),
    "WebP with alpha": lambda: encode(Image.new("RGBA", (16383, 3050), (255, 0, 0, 254)), "WEBP", lossless=True),
    "TIFF": lambda: tiff(SQUARE, 8, deflated(b"\x80" * SQUARE[0], SQUARE[1]), (259, 3, 8)),
    "TIFF of strips that share their bytes": lambda: strips(1000, zlib.compress(bytes(50_000)), 50_000),
    "BMP of one bit": lambda: bmp((7000, 7000), 1, 0, bytes(876 * 7000)),
}
"""Pictures of as many pixels as the server takes; each must be answered."""

TOO_MUCH_WORK: dict[str, Make] = {
    "JPEG of 25,000 EXIF segments": lambda: jpeg(segment(0xE1, b"Exif\0\0" + bytes(10)) * 25_000),
    "PNG of 1,000 chunks of a megabyte of what is no text": lambda: red_png(
        chunk(b"iTXt", b"x\0\1\0\xff\0\0" + deflated(MEGABYTE, 1)) * 1000
    ),
    "PNG of 1,000 profiles of a megabyte": lambda: red_png(chunk(b"iCCP", b"x\0\0" + deflated(MEGABYTE, 1)) * 1000),
    "JPEG of 100 scans over 50 million pixels": lambda: jpeg_of((7000, 7000), 100),
}
"""Files that a decoder works on for minutes once they are as large as the server takes; each must be refused."""

HIDDEN: dict[str, Recipe] = {
    "TIFF of 400,000 strips": Tiff((100, 100), "flat", rows=1, listed=400_000, shared=True),
    "TIFF whose strips cover it 200 times": Tiff((2500, 2500), "flat", rows=2499, listed=400, shared=True),
    "TIFF of high tiles": Tiff((1600, 16), "flat", compression=8, tile=(16, 3_000_000), shared=True),
    "TIFF of strips of 4 MB that share their bytes": Tiff(
        (1000, 1000), "noise", compression=8, rows=1, shared=True, empty=400_000
    ),
    "TIFF of JPEG strips with scans": Tiff((64, 4000), "noise", compression=7, scans=3, rows=8, shared=True),
    "TIFF of deflate blocks that say nothing": Tiff((1000, 1000), "flat", compression=8, empty=1_000_000),
    "TIFF of 300,000 rationals": Tiff((64, 64), "flat", tags=((282, 5, 300_000),)),
    "TIFF of 300,000 rationals in its EXIF": Tiff((64, 64), "flat", nested=Exif(0, 5, 300_000)),
    "TIFF of 4,000 tags": Tiff((64, 64), "flat", compression=8, many=4000),
    "BMP of gaps": Bmp((1000, 7000), 8, 1, "gaps", 7000),
    "BMP of deltas that move nothing": Bmp((64, 64), 8, 1, "still", 5_000_000),
    "BMP of runs of half bytes": Bmp((2500, 2500), 4, 2, "runs", 60_000),
    "GIF of a comment in 500,000 blocks": Gif((64, 64), (64, 64), "flat", ((0xFE, 500_000, 1, 1),)),
    "GIF of bytes that are nothing": Gif((64, 64), (64, 64), "flat", gap=5_000_000),
    "PNG of 150,000 chunks": Png((64, 64), "flat", chunks=(("juNk", 0, 150_000),)),
    "PNG of pixels byte by byte": Png((1000, 1000), "noise", split=1),
    "PNG of deflate blocks that say nothing": Png((64, 64), "flat", empty=1_700_000),
    "PNG of a profile of 5 million lines": Png((64, 64), "flat", chunks=(("profile", 5_000_000, 1),)),
    "PNG of a million rationals": Png((64, 64), "flat", exif=Exif(0x0112, 5, 1_000_000)),
    "PNG of 5 million shorts": Png((64, 64), "flat", exif=Exif(0x0112, 3, 5_000_000)),
    "JPEG of a million rationals": Jpeg((64, 64), "flat", exif=Exif(0x011A, 5, 1_000_000)),
    "JPEG of bytes that are nothing": Jpeg((64, 64), "flat", gap=15_000_000),
    "JPEG of 290,000 tables": Jpeg((64, 64), "flat", front=((0xDB, "table", 65_000, 290),)),
    "JPEG of 6 million layers": Jpeg((64, 64), "flat", front=((0xC0, "frame", 65_000, 290),)),
    "JPEG of 1.5 million Photoshop resources": Jpeg((64, 64), "flat", front=((0xED, "8BIM", 65_000, 290),)),
    "JPEG of 950 EXIF segments": Jpeg((64, 64), "flat", front=((0xE1, "exif", 20_000, 950),)),
    "JPEG of 100 scans": Jpeg((2500, 2500), "flat", "L", progressive=True, scans=200),
    "WebP of a million rationals": Webp((64, 64), exif=Exif(0x0112, 5, 1_000_000)),
    "WebP of a million chunks": Webp((64, 64), chunks=(("juNk", 0, 1_000_000),)),
}
"""Files of few pixels that kept a core busy for seconds to hours; each is refused before anything decodes it."""

COSTLY: dict[str, Recipe] = {
    "BMP of gaps": Bmp((1000, 1000), 8, 1, "gaps", 1000),
    "GIF larger than its canvas": Gif((1000, 300), (1000, 1000), "noise", interlaced=True),
    "JPEG of four inks": Jpeg((1000, 2500), "noise", "CMYK", 98, progressive=True),
    "JPEG of 16 scans": Jpeg((2500, 2500), "flat", "L", progressive=True, scans=6),
    "JPEG that is long": Jpeg((2500, 25), "flat"),
    "PNG of predicted pixels": Png((1000, 2500), "smooth", (16, 6), 4),
    "PNG of deflate blocks that say nothing": Png((1000, 1000), "flat", empty=300_000),
    "PNG of texts": Png((64, 64), "flat", chunks=(("iTXt", 10**6, 90),)),
    "TIFF of rows": Tiff((300, 2500), "flat", 6, 8, 3, 8, rows=1, shared=True),
    "TIFF of 2,000 tags": Tiff((64, 64), "flat", compression=8, many=2000),
    "TIFF of 16 bits": Tiff((2500, 2500), "smooth", 1, 16, 1, 8),
    "WebP of 65,536 groups of codes": Webp((1024, 1024), coding="groups", groups=65536),
    "WebP with alpha": Webp((1000, 1000), "noise", "alpha"),
}
"""The worst of each format that is let in, in proportion to its pixels or to what its header was taken for."""
