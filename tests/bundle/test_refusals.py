"""What is refused before any pixel is decoded: foreign formats, too many bytes, too many pixels, hidden work."""

import io
import json
import random
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image, ImageFile, features

from bundle.errors import (
    ImageAspectRatioRefused,
    ImageFormatRefused,
    ImageTooCostly,
    ImageTooManyBytes,
    ImageTooManyPixels,
    ImageUndecodable,
)
from bundle.formats.walk import ALLOWED_FORMATS
from bundle.preprocessing import Limits, decode

BILLION = (40000, 25000)
FOREIGN = {
    "empty": (b"", "empty"),
    "HTML": (b"<!doctype html><title>404</title>", "text or markup"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "text or markup"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
    "PSD": (b"8BPS\0\1" + b"\0" * 40, "PSD"),
    "ZIP": (b"PK\3\4" + b"\0" * 40, "a ZIP archive"),
    "HEIC": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC or another ISO media file"),
    "MP4": (b"\0\0\0\x18ftypisom" + b"\0" * 40, "HEIC or another ISO media file"),
    "JSON": (b'{"image": "aGVsbG8="}', "of an unknown format"),
    "base64": (b"/9j/4AAQSkZJRgABAQ", "of an unknown format"),
    "zeros": (b"\0" * 1000, "of an unknown format"),
}
WRITTEN_BY_PILLOW = ["ICO", "PPM", "TGA", "PCX", "SGI", "EPS", "DDS", "DIB", "ICNS", "QOI", "SPIDER"]


# Formats


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_data_is_refused_with_what_was_found(name: str) -> None:
    data, found = FOREIGN[name]
    with pytest.raises(ImageFormatRefused) as refusal:
        decode(data)
    assert str(refusal.value) == f"the data is {found}; allowed formats are JPEG, PNG, WEBP, BMP, GIF, TIFF"
    assert refusal.value.facts == {"found": found, "allowed": "JPEG,PNG,WEBP,BMP,GIF,TIFF"}


@pytest.mark.parametrize("format_name", WRITTEN_BY_PILLOW)
def test_formats_that_pillow_could_read_are_refused(format_name: str, encode) -> None:
    mode = "F" if format_name == "SPIDER" else "RGB"
    with pytest.raises(ImageFormatRefused):
        decode(encode(Image.new(mode, (16, 16)), format_name))


@pytest.mark.parametrize(
    ("format_name", "feature", "found"), [("AVIF", "avif", "AVIF"), ("JPEG2000", "jpg_2000", "of")]
)
def test_newer_formats_are_refused_where_this_pillow_writes_them(
    format_name: str, feature: str, found: str, encode
) -> None:
    if not features.check(feature):
        pytest.skip(f"this Pillow was built without {feature}")
    with pytest.raises(ImageFormatRefused, match=f"the data is {found}"):
        decode(encode(Image.new("RGB", (16, 16)), format_name))


def test_random_bytes_are_refused() -> None:
    generator = random.Random(0)
    for length in [*range(1, 40), 1000, 100_000]:
        with pytest.raises((ImageFormatRefused, ImageUndecodable)):
            decode(generator.randbytes(length))


@pytest.mark.parametrize("start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM"])
def test_a_known_start_with_nothing_behind_is_called_by_its_format(start: bytes) -> None:
    with pytest.raises(ImageUndecodable, match=r"the (JPEG|PNG|GIF|TIFF|BMP) data cannot be decoded \(.*\); send"):
        decode(start + b"\0" * 3)


@pytest.fixture
def spied_plugin() -> Iterator[list[bytes]]:
    """A format that Pillow knows and the policy does not, with every attempt to open it."""
    attempts: list[bytes] = []

    class Spy(ImageFile.ImageFile):
        def _open(self) -> None:
            attempts.append(self.fp.read())
            self._size, self._mode = (1, 1), "RGB"

    Image.register_open("SPY", Spy, lambda prefix: attempts.append(prefix) or True)
    yield attempts
    Image.ID.remove("SPY")
    del Image.OPEN["SPY"]


def test_no_other_format_is_even_tried(spied_plugin: list[bytes]) -> None:
    with pytest.raises(ImageFormatRefused):
        decode(b"SPY picture")
    assert spied_plugin == []
    Image.open(io.BytesIO(b"SPY picture"))
    assert spied_plugin != [], "the spy itself works"


# Bytes


def test_one_byte_too_many_is_refused_before_anything_is_read(encode, scene) -> None:
    data = encode(scene, "PNG")
    decode(data, Limits(max_bytes=len(data)))
    with pytest.raises(ImageTooManyBytes) as refusal:
        decode(data, Limits(max_bytes=len(data) - 1))
    assert str(refusal.value) == f"the image has {len(data):,} bytes; at most {len(data) - 1:,} are allowed"
    with pytest.raises(ImageTooManyBytes):
        decode(b"no picture at all", Limits(max_bytes=3))


# Pixels


@pytest.mark.parametrize("format_name", ALLOWED_FORMATS)
def test_one_pixel_too_many_is_refused(format_name: str, encode, scene) -> None:
    data, pixels = encode(scene, format_name), scene.width * scene.height
    decode(data, Limits(max_pixels=pixels))
    with pytest.raises(ImageTooManyPixels) as refusal:
        decode(data, Limits(max_pixels=pixels - 1))
    assert str(refusal.value) == f"the image has 50×40 = {pixels:,} pixels; at most {pixels - 1:,} are allowed"
    assert refusal.value.facts == {"found": str(pixels), "limit": str(pixels - 1)}


def gif(canvas: tuple[int, int], frame: tuple[int, int], disposal: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + b"\0" * 6
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    return screen + control + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x44\1\0;"


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 99
    )


def webp(width: int, height: int, encode) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jpeg(width: int, height: int, encode) -> bytes:
    data = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.fixture
def bombs(png, tiff, encode) -> dict[str, bytes]:
    """Less than a kilobyte each, a billion pixels when believed."""
    tags = [(322, 4, BILLION[0]), (323, 4, BILLION[1])]
    return {
        "PNG": png(BILLION, 8, 2, [b"\0" * 30]),
        "PNG grey16": png(BILLION, 16, 0, [b"\0" * 30]),
        "BMP": bmp(*BILLION),
        "BMP top-down": bmp(BILLION[0], -BILLION[1]),
        "GIF canvas": gif(BILLION, (1, 1), disposal=0),
        "GIF frame": gif((1, 1), BILLION, disposal=0),
        "GIF disposal to background": gif((1, 1), BILLION, disposal=2),
        "GIF disposal to previous": gif((1, 1), BILLION, disposal=3),
        "TIFF": tiff(BILLION, 8, b"\0" * 30),
        "TIFF tile": tiff((10, 10), 8, b"\0" * 100, *tags, (324, 4, 8), (325, 4, 100)),
        "TIFF deflated tile": tiff((10, 10), 8, b"\0" * 100, (259, 3, 8), *tags, (324, 4, 8), (325, 4, 100)),
        "WEBP": webp(*BILLION, encode),
        "JPEG": jpeg(*BILLION, encode),
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_billion_pixels_are_refused_with_found_and_allowed(bombs: dict[str, bytes]) -> None:
    for name, data in bombs.items():
        with pytest.raises(ImageTooManyPixels) as refusal:
            decode(data)
        assert "1,000,000,000 pixels; at most 50,000,000 are allowed" in str(refusal.value), name
        assert refusal.value.facts == {"found": "1000000000", "limit": "50000000"}


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_between_our_limit_and_twice_pillows_the_answer_is_the_same(action: Literal["ignore", "error"], encode) -> None:
    """There Pillow warns; whether somebody made warnings errors must not change what a caller is told."""
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ImageTooManyPixels, match="200,000,000 pixels; at most 50,000,000 are allowed"):
            decode(jpeg(20000, 10000, encode))


MEASURE = """
import json, re, sys
from pathlib import Path
from bundle.errors import ImageTooManyPixels
from bundle.preprocessing import decode

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

grown = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    before = peak()
    try:
        decode(path.read_bytes())
    except ImageTooManyPixels:
        grown[path.name] = peak() - before
print(json.dumps(grown))
"""


def test_a_billion_pixels_are_refused_without_taking_memory(bombs: dict[str, bytes], tmp_path: Path, encode) -> None:
    """In a process of its own, where the peak is not hidden behind that of other tests.

    VmHWM and not `ru_maxrss`, which a process inherits from the one that started it.
    """
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path)]
    grown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert grown.keys() == bombs.keys()
    assert {name: grew for name, grew in grown.items() if grew > 32 * 2**20} == {}


# Shapes


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("file", ["PNG", "JPEG", "GIF", "TIFF"])
def test_one_side_over_a_hundred_times_the_other_is_refused(encode, file: str, upright: bool) -> None:
    """The model would see less than a hundredth of it."""

    def image(long: int) -> bytes:
        return encode(Image.new("RGB", (3, long) if upright else (long, 3)), file)

    assert max(decode(image(300)).size) == 300
    with pytest.raises(ImageAspectRatioRefused) as refusal:
        decode(image(301))
    width, height = ("3", "301") if upright else ("301", "3")
    assert refusal.value.facts == {"width": width, "height": height, "limit": "100"}


def test_a_refused_shape_is_not_decoded(png) -> None:
    """Its pixels are missing, which nobody finds out."""
    with pytest.raises(ImageAspectRatioRefused):
        decode(png((10_000, 50), 8, 2, []))


# Work that the number of pixels does not show


def test_a_jpeg_of_very_many_scans_is_refused(encode) -> None:
    """Each scan runs over the whole picture: 20 MB of empty ones would keep a core busy for hours."""
    data = encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    scan, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    few, many = (data[:end] + data[scan:end] * count + data[end:] for count in (50, 500))
    assert decode(few).size == (64, 64)
    with pytest.raises(ImageTooCostly, match="more than 500 scans"):
        decode(many)
