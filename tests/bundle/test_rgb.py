"""Each thing that Pillow alone gets wrong or leaves open, by its name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from bundle.errors import ImageModeRefused
from bundle.preprocessing import decode
from bundle.rgb import upright_rgb

WHITE = (255, 255, 255)
TURNS = {  # EXIF orientation → how the stored picture has to be turned (CIPA DC-008, 4.6.4 A), in NumPy's words
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
EXIF_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def as_pillow_reads(data: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


# Orientation


@pytest.mark.parametrize("value", TURNS)
@pytest.mark.parametrize("format_name", EXIF_FORMATS)
def test_exif_orientation_is_applied(format_name: str, value: int, scene, encode, orientation) -> None:
    expected = TURNS[value](pixels(encode(scene, format_name)))
    np.testing.assert_array_equal(pixels(encode(scene, format_name, exif=orientation(value))), expected)


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
@pytest.mark.parametrize("format_name", EXIF_FORMATS)
def test_an_illegal_orientation_turns_nothing(format_name: str, value: int, scene, encode, orientation) -> None:
    found = pixels(encode(scene, format_name, exif=orientation(value)))
    np.testing.assert_array_equal(found, pixels(encode(scene, format_name)))


@pytest.mark.parametrize("field", [(2, 4, b"6\0\0\0"), (3, 2, b"\6\0\6\0"), (5, 1, b"\0\0\0\0"), (12, 1, b"\0\0\0\0")])
def test_an_orientation_of_the_wrong_type_does_not_refuse_the_picture(
    field: tuple[int, int, bytes], scene, encode
) -> None:
    kind, count, value = field
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4s", 0x0112, kind, count, value) + b"\0\0\0\0"
    np.testing.assert_array_equal(pixels(encode(scene, "JPEG", exif=exif)), pixels(encode(scene, "JPEG")))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Possibly corrupt:UserWarning")
@pytest.mark.parametrize(
    "damaged", [b"", b"not TIFF at all", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08\0\x01"]
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_exif_block_does_not_refuse_the_picture(format_name: str, damaged: bytes, scene, encode) -> None:
    found = pixels(encode(scene, format_name, exif=b"Exif\0\0" + damaged))
    np.testing.assert_array_equal(found, pixels(encode(scene, format_name)))


def test_orientation_and_transparency_work_together(scene, encode, orientation) -> None:
    picture = scene.copy()
    picture.putalpha(Image.linear_gradient("L").resize(scene.size))
    plain = pixels(encode(picture, "PNG"))
    np.testing.assert_array_equal(pixels(encode(picture, "PNG", exif=orientation(6))), TURNS[6](plain))


# Transparency


def test_rgba_is_composited_on_white(encode) -> None:
    alpha = np.array([[0, 1, 64, 128, 254, 255]], np.uint8)
    picture = Image.fromarray(np.dstack([np.full((1, 6, 3), (10, 20, 30), np.uint8), alpha]))
    share = alpha[..., None] / 255
    expected = np.array([10, 20, 30]) * share + 255 * (1 - share)
    for format_name in ("PNG", "TIFF"):
        assert np.abs(pixels(encode(picture, format_name)) - expected).max() <= 1, format_name
    np.testing.assert_array_equal(pixels(encode(picture, "PNG"))[0, [0, 5]], [WHITE, (10, 20, 30)])


def test_webp_alpha_is_composited_on_white(encode) -> None:
    picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    picture.paste((0, 100, 0, 255), (4, 0, 8, 8))
    found = pixels(encode(picture, "WEBP", lossless=True, exact=True))
    np.testing.assert_array_equal(found[0, [0, 7]], [WHITE, (0, 100, 0)])


def test_grey_with_alpha_is_composited_on_white(encode) -> None:
    picture = Image.fromarray(np.array([[[40, 0], [40, 255], [0, 128]]], np.uint8), "LA")
    np.testing.assert_array_equal(pixels(encode(picture, "PNG"))[0, :, 0], [255, 40, 127])


def test_a_palette_with_one_transparent_entry_is_composited_on_white(encode) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.putdata([0, 1, 2])
    for format_name in ("PNG", "GIF"):
        found = pixels(encode(picture, format_name, transparency=1))
        np.testing.assert_array_equal(found[0], [(10, 20, 30), WHITE, (70, 80, 90)], format_name)


def test_a_palette_with_graded_transparency_is_composited_on_white(encode) -> None:
    picture = Image.new("P", (3, 1))
    picture.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200])
    picture.putdata([0, 1, 2])
    found = pixels(encode(picture, "PNG", transparency=bytes([0, 128, 255])))
    np.testing.assert_array_equal(found[0, :, 0], [255, 177, 200])


def test_a_palette_with_an_alpha_plane_is_composited_on_white(encode) -> None:
    picture = Image.new("RGB", (2, 1), (255, 0, 0)).quantize(4).convert("PA")
    picture.putalpha(Image.fromarray(np.array([[0, 255]], np.uint8)))
    data = encode(picture, "TIFF")
    assert Image.open(io.BytesIO(data)).mode == "PA"
    np.testing.assert_array_equal(pixels(data)[0], [WHITE, (255, 0, 0)])


def test_the_transparent_colour_of_rgb_is_composited_on_white(png, chunk) -> None:
    row = bytes([1, 2, 3, 1, 2, 4])
    found = pixels(png((2, 1), 8, 2, [row], chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
    np.testing.assert_array_equal(found[0], [WHITE, (1, 2, 4)])


def test_the_transparent_colour_of_16_bit_rgb_is_composited_on_white(png, chunk) -> None:
    """Pillow keeps the high byte of each sample, and would compare it with the low byte of the transparent colour."""
    row = struct.pack(">6H", 0x1234, 0x2234, 0xFF00, 0x3412, 0x3422, 0x3400)
    found = pixels(png((2, 1), 16, 2, [row], chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x2234, 0xFF00))))
    np.testing.assert_array_equal(found[0], [WHITE, (0x34, 0x34, 0x34)])


@pytest.mark.parametrize(
    ("bits", "row", "transparent", "expected"),
    [
        (1, bytes([0b01000000]), 0, [255, 255]),
        (1, bytes([0b01000000]), 1, [0, 255]),
        (2, bytes([0b00011011]), 2, [0, 85, 255, 255]),
        (4, bytes([0x5A]), 5, [255, 170]),
        (8, bytes([100, 101]), 100, [255, 101]),
        (16, struct.pack(">3H", 1000, 1001, 65535), 1000, [255, 4, 255]),
    ],
)
def test_the_transparent_grey_is_composited_on_white_at_every_depth(
    bits: int, row: bytes, transparent: int, expected: list[int], png, chunk
) -> None:
    """Pillow spreads 2 and 4 bits to 8, and leaves the transparent grey as it was."""
    data = png((len(expected), 1), bits, 0, [row], chunk(b"tRNS", struct.pack(">H", transparent)))
    np.testing.assert_array_equal(pixels(data)[0, :, 0], expected)


def test_16_bit_samples_with_alpha_are_composited_on_white(png) -> None:
    grey = pixels(png((2, 1), 16, 4, [struct.pack(">4H", 0x1234, 0xFFFF, 0x3412, 0)]))
    np.testing.assert_array_equal(grey[0, :, 0], [0x12, 255])
    colour = pixels(png((2, 1), 16, 6, [struct.pack(">8H", 0x1234, 0, 0xFF00, 0xFFFF, 1, 2, 3, 0)]))
    np.testing.assert_array_equal(colour[0], [(0x12, 0, 255), WHITE])


# Grey of 12 and 16 bits


def test_16_bit_grey_png_is_scaled_not_clipped(png) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16)
    rows = [row.astype(">u2").tobytes() for row in values.reshape(64, 64)]
    found = pixels(png((64, 64), 16, 0, rows))
    np.testing.assert_array_equal(found[..., 0].ravel(), np.round(values / 257).astype(np.uint8))
    assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_grey_tiff_is_scaled_in_both_byte_orders(order: str, tiff) -> None:
    values = np.array([0, 127, 129, 32768, 65406, 65535], np.uint16)
    found = pixels(tiff((6, 1), 16, values.astype(order + "u2").tobytes(), order=order))
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 128, 254, 255])


def test_16_bit_grey_tiff_through_a_compressor_is_scaled(encode) -> None:
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    found = pixels(encode(Image.fromarray(values), "TIFF", compression="tiff_lzw"))
    np.testing.assert_array_equal(found[..., 0], np.round(values / 257))


def test_16_bit_grey_tiff_negatives_are_turned_positive(tiff) -> None:
    """PhotometricInterpretation 0: white is zero."""
    body = struct.pack("<3H", 0, 32768, 65535)
    np.testing.assert_array_equal(pixels(tiff((3, 1), 16, body, (262, 3, 0)))[0, :, 0], [255, 127, 0])
    np.testing.assert_array_equal(pixels(tiff((2, 1), 8, b"\0\xff", (262, 3, 0)))[0, :, 0], [255, 0])


def test_12_bit_grey_tiff_is_scaled_from_its_own_range(tiff) -> None:
    """Pillow gives 0 to 4095 in 16 bits, which would be nearly black."""
    values = np.arange(4096)
    packed = b"".join(int(high << 12 | low).to_bytes(3, "big") for high, low in values.reshape(-1, 2))
    found = pixels(tiff((64, 64), 12, packed))
    np.testing.assert_array_equal(found[..., 0].ravel(), np.round(values * 255 / 4095))


@pytest.mark.parametrize("mode", ["F", "I"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_float_and_32_bit_integer_tiffs_are_refused(mode: str, compression: str | None, encode) -> None:
    with pytest.raises(ImageModeRefused, match=f"pixels of type {mode}; allowed are 1 to 16 bits of grey"):
        decode(encode(Image.new(mode, (4, 4)), "TIFF", compression=compression))


def test_signed_16_bit_tiffs_are_refused(tiff) -> None:
    with pytest.raises(ImageModeRefused):
        decode(tiff((1, 1), 16, b"\0\x80", (339, 3, 2)))


def test_lab_tiffs_are_refused(encode) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    with pytest.raises(ImageModeRefused, match="LAB"):
        decode(encode(ImageCms.applyTransform(Image.new("RGB", (4, 4)), to_lab), "TIFF"))


# CMYK


@pytest.fixture(scope="module")
def ink() -> Image.Image:
    """Ink as it is meant: 255 is full ink. Cyan, magenta, yellow, black and bare paper, in blocks that JPEG keeps."""
    picture = Image.new("CMYK", (80, 16))
    for index, colour in enumerate([(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)]):
        picture.paste(colour, (16 * index, 0, 16 * index + 16, 16))
    return picture


INK_COLOURS = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0), WHITE]


def without_adobe_marker(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def blocks(data: bytes) -> np.ndarray:
    return pixels(data)[8, 8::16].astype(int)


def test_adobe_cmyk_jpeg_stores_ink_inverted(ink, encode) -> None:
    """Pillow writes Adobe's marker, and writes the ink inverted as Adobe does."""
    assert np.abs(blocks(encode(ink, "JPEG", quality=100)) - INK_COLOURS).max() <= 2


def test_plain_cmyk_jpeg_stores_ink_as_it_is(ink, encode) -> None:
    """Without the marker the same bytes mean the complement, so the complement is what is written here."""
    stored = Image.fromarray(255 - np.asarray(ink), "CMYK")
    assert np.abs(blocks(without_adobe_marker(encode(stored, "JPEG", quality=100))) - INK_COLOURS).max() <= 2


def test_plain_cmyk_jpeg_keeps_its_orientation(ink, encode, orientation) -> None:
    data = without_adobe_marker(encode(ink, "JPEG"))
    turned = without_adobe_marker(encode(ink, "JPEG", exif=orientation(6)))
    np.testing.assert_array_equal(pixels(turned), TURNS[6](pixels(data)))


def test_ycck_jpeg_is_decoded_as_adobe_means_it(ink, encode) -> None:
    """Adobe transform 2 (Technical Note 5116): the complements of the stored, inverted CMY are kept as YCbCr beside K.

    Complement and inversion cancel out, so that YCbCr holds the ink itself; Pillow inverts whatever it writes.
    """
    as_ycc = Image.fromarray(np.asarray(ink)[..., :3].copy()).convert("YCbCr")
    planes = Image.fromarray(255 - np.asarray(as_ycc)).split()
    data = bytearray(encode(Image.merge("CMYK", (*planes, ink.getchannel("K"))), "JPEG", quality=100))
    marker = data.index(b"\xff\xee")
    assert data[marker + 4 : marker + 9] == b"Adobe"
    data[marker + 15] = 2
    assert np.abs(blocks(bytes(data)) - INK_COLOURS).max() <= 4


def test_cmyk_tiff_stores_ink_as_it_is(ink, encode) -> None:
    np.testing.assert_array_equal(blocks(encode(ink, "TIFF")), INK_COLOURS)


# Frames


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_animated_and_multi_page_files_give_frame_0(format_name: str, encode) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], format_name, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    found = pixels(data)
    assert found.shape == (16, 16, 3)
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 2


def test_a_gif_frame_smaller_than_its_canvas_leaves_the_rest_as_the_format_says(encode) -> None:
    first = Image.new("P", (8, 8), 1)
    first.putpalette([0, 0, 0, 0, 200, 0])
    data = encode(first, "GIF", transparency=1)
    np.testing.assert_array_equal(pixels(data), np.full((8, 8, 3), 255))


# Everything else stays as Pillow gives it


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("format_name", ["PNG", "BMP", "GIF", "TIFF"])
def test_plain_pictures_are_left_alone(format_name: str, mode: str, scene, encode) -> None:
    data = encode(scene.convert(mode), format_name)
    np.testing.assert_array_equal(pixels(data), as_pillow_reads(data))


def test_ycbcr_tiff_becomes_rgb(scene, encode) -> None:
    data = encode(scene.convert("YCbCr"), "TIFF")
    np.testing.assert_array_equal(pixels(data), as_pillow_reads(data))
    assert np.abs(pixels(data).astype(int) - np.asarray(scene)).max() <= 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "P"])
def test_a_large_picture_is_converted_as_its_rows_alone(mode: str) -> None:
    """It is done a band of rows at a time, which must not show."""
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 4), np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(noise[:, :, :2].copy().view(np.uint16)[:, :, 0])
    else:
        picture = Image.fromarray(noise[:, :, :3]).quantize(64) if mode == "P" else Image.fromarray(noise).convert(mode)
    if mode in {"I;16", "P"}:
        picture.info["transparency"] = 7
    rows = [picture.crop((0, top, 1500, top + 300)) for top in range(0, 1500, 300)]
    whole = np.asarray(upright_rgb(picture, b""))
    assert np.array_equal(whole, np.concatenate([np.asarray(upright_rgb(row, b"")) for row in rows]))
