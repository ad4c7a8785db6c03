"""Encoded pictures for the tests of `bundle`, among them what no library writes: built chunk by chunk, tag by tag."""

import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "flower_photos"
ALL_PHOTOS = "ANTHER_ALL_PHOTOS"
EXIF_ORIENTATION = 0x0112
ROOT = Path(__file__).parents[2]
_OWN_MOUNTS = ("unshare", "--map-root-user", "--mount", "sh", "-c")

Encode = Callable[..., bytes]
Chunk = Callable[[bytes, bytes], bytes]


class WithMount(Protocol):
    def __call__(self, mount: str, script: str, *arguments: object) -> "subprocess.CompletedProcess[str]": ...


class Png(Protocol):
    def __call__(
        self, size: tuple[int, int], bits: int, colour_type: int, rows: list[bytes], *chunks: bytes
    ) -> bytes: ...


class Tiff(Protocol):
    def __call__(
        self, size: tuple[int, int], bits: int, body: bytes, *tags: tuple[int, int, int | None], order: str = "<"
    ) -> bytes: ...


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    """About 150 photos spread over all classes, or every one where the environment says so."""
    found = sorted(PHOTOS.glob("*/*.jpg"))
    if not found:
        pytest.skip(f"the flower photos are not at {PHOTOS}")
    return found if os.environ.get(ALL_PHOTOS) else found[:: max(len(found) // 150, 1)]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """`encode(image, format, **options)`: what Pillow writes."""
    return _encode


@pytest.fixture(scope="session")
def orientation() -> Callable[[int], bytes]:
    """An EXIF block with this value for the orientation."""
    return _orientation


@pytest.fixture(scope="session")
def with_mount() -> WithMount:
    """`with_mount("mount …", script, *arguments)` runs Python where the shell's mounts are seen by nobody else."""
    probe = [*_OWN_MOUNTS, "mount -t tmpfs tmpfs /tmp"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    return _with_mount


@pytest.fixture(scope="session")
def chunk() -> Chunk:
    return _chunk


@pytest.fixture(scope="session")
def png() -> Png:
    """A PNG of given bit depth and colour type; `rows` are packed samples, extra chunks stand before the pixels."""
    return _png


@pytest.fixture(scope="session")
def tiff() -> Tiff:
    """A TIFF of one uncompressed grey strip; `tags` (number, type, value) replace the usual ones, None takes away."""
    return _tiff


@pytest.fixture(scope="session")
def scene() -> Image.Image:
    """A small RGB picture, 50×40, in which no two corners, rows or columns are alike."""
    return _scene()


@pytest.fixture(scope="session")
def small_files() -> dict[str, bytes]:
    """Small files of all six formats in the kinds that decoders treat differently."""
    return _small_files()


def _with_mount(mount: str, script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    python = shlex.join([sys.executable, "-c", script, *map(str, arguments)])
    command = [*_OWN_MOUNTS, f"{mount} && exec {python}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)


def _encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, format_name, **options)  # saving as JPEG leaves settings that TIFF trips over
    return buffer.getvalue()


def _orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = value
    return exif.tobytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(size: tuple[int, int], bits: int, colour_type: int, rows: list[bytes], *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + _chunk(b"IEND", b"")


def _tiff(size: tuple[int, int], bits: int, body: bytes, *tags: tuple[int, int, int | None], order: str = "<") -> bytes:
    width, height = size
    usual = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    usual += [(278, 4, height), (279, 4, len(body))]
    last = {tag: (tag, kind, value) for tag, kind, value in [*usual, *tags]}
    entries = {tag: entry for tag, entry in last.items() if entry[2] is not None}
    body += b"\0" * (len(body) % 2)
    directory = b"".join(_tiff_entry(order, *entries[tag]) for tag in sorted(entries))
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(body))
    return start + body + struct.pack(order + "H", len(entries)) + directory + b"\0" * 4


def _tiff_entry(order: str, tag: int, kind: int, value: int) -> bytes:
    packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    return struct.pack(order + "HHI", tag, kind, 1) + packed


def _scene() -> Image.Image:
    y, x = np.mgrid[0:40, 0:50]
    grain = np.random.default_rng(0).integers(0, 40, (40, 50))
    return Image.fromarray(np.stack([x * 4 + grain, y * 5 + grain, (x * y) % 200 + grain], axis=-1).astype(np.uint8))


def _small_files() -> dict[str, bytes]:
    scene = _scene()
    other, palette = scene.rotate(180), scene.quantize(32)
    grey16 = Image.fromarray(np.asarray(scene)[:, :, 0].astype(np.uint16) * 200)
    animated = {"save_all": True, "append_images": [other], "duration": 50}
    rotated = _orientation(6)
    return {
        "jpeg": _encode(scene, "JPEG"),
        "jpeg-progressive": _encode(scene, "JPEG", progressive=True, exif=rotated),
        "jpeg-restart": _encode(scene, "JPEG", restart_marker_blocks=2),
        "jpeg-grey": _encode(scene.convert("L"), "JPEG"),
        "jpeg-cmyk": _encode(scene.convert("CMYK"), "JPEG"),
        "jpeg-mpo": _encode(scene, "MPO", save_all=True, append_images=[other.copy()]),
        "png": _encode(scene, "PNG", exif=rotated),
        "png-animated": _encode(scene, "PNG", **animated),
        "png-palette": _encode(palette, "PNG", transparency=3),
        "png-grey16": _encode(grey16, "PNG", transparency=400),
        "png-alpha": _encode(scene.convert("LA"), "PNG"),
        "webp": _encode(scene, "WEBP", exif=rotated),
        "webp-lossless": _encode(scene.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": _encode(scene, "WEBP", **animated),
        "bmp": _encode(scene, "BMP"),
        "bmp-palette": _encode(palette, "BMP"),
        "bmp-alpha": _encode(scene.convert("RGBA"), "BMP"),
        "bmp-rle8": _bmp_rle8(),
        "bmp-bilevel": _encode(scene.convert("1"), "BMP"),
        "gif": _encode(palette, "GIF", comment=b"a;b;" * 20),
        "gif-animated": _encode(palette, "GIF", transparency=3, disposal=2, **animated),
        "gif-interlaced": _encode(palette, "GIF", interlace=1),
        "tiff": _encode(scene, "TIFF", exif=rotated),
        "tiff-lzw": _encode(scene, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": _encode(scene, "TIFF", compression="jpeg"),
        "tiff-deflate": _encode(scene.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff-group4": _encode(scene.convert("1"), "TIFF", compression="group4"),
        "tiff-grey16": _encode(grey16, "TIFF"),
        "tiff-pages": _encode(scene, "TIFF", save_all=True, append_images=[other]),
    }


def _bmp_rle8() -> bytes:
    """Run-length coding, which Pillow reads and does not write: rows of two runs each, then the end mark."""
    width, height = 20, 12
    body = b"".join(bytes([10, row % 4, 10, (row + 1) % 4, 0, 0]) for row in range(height)) + b"\0\1"
    palette = b"".join(bytes([60 * index, 30 * index, 255 - 50 * index, 0]) for index in range(4)).ljust(1024, b"\0")
    offset = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + header + palette + body
