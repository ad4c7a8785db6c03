"""A box out of the resized picture equals the crop of Pillow's whole resize, bit for bit."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle.resample import resize_box

SIDES = st.integers(1, 300)


def random_pixels(width: int, height: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    levels = random.choice([2, 256])
    return (random.integers(0, levels, (height, width, 3)) * (255 // (levels - 1))).astype(np.uint8)


def whole(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES, new_width=SIDES, new_height=SIDES, seed=st.integers(0, 99), data=st.data())
def test_equals_the_crop_of_the_whole_resize(
    width: int, height: int, new_width: int, new_height: int, seed: int, data: st.DataObject
) -> None:
    left, right = sorted(data.draw(st.lists(st.integers(0, new_width), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(data.draw(st.lists(st.integers(0, new_height), min_size=2, max_size=2, unique=True)))
    pixels = random_pixels(width, height, seed)
    found = resize_box(pixels, (new_width, new_height), (left, top, right, bottom))
    np.testing.assert_array_equal(found, whole(pixels, (new_width, new_height))[top:bottom, left:right])


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 4000), breadth=st.integers(1, 3), resize=st.sampled_from([64, 224, 256]))
@example(length=4000, breadth=1, resize=256)
def test_equals_the_whole_resize_along_the_long_side_of_a_thin_picture(length: int, breadth: int, resize: int) -> None:
    """One row or column of the whole, and of it the middle, is enough to see the arithmetic of the long side."""
    pixels, long = random_pixels(length, breadth), resize * length // breadth
    start, stop = max(long // 2 - 16, 0), min(long // 2 + 16, long)
    wide = resize_box(pixels, (long, 1), (start, 0, stop, 1))
    np.testing.assert_array_equal(wide, whole(pixels, (long, 1))[:, start:stop])
    pixels = np.ascontiguousarray(pixels.swapaxes(0, 1))
    tall = resize_box(pixels, (1, long), (0, start, 1, stop))
    np.testing.assert_array_equal(tall, whole(pixels, (1, long))[start:stop])


@pytest.mark.parametrize(
    ("size", "new_size"),
    [((40, 40), (30, 20)), ((40, 40), (31, 20)), ((40, 40), (60, 39)), ((40, 40), (60, 41)), ((300, 900), (256, 768))],
    ids=str,
)
def test_the_order_of_the_passes_is_that_of_pillow(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    """On both sides of the borders at which Pillow takes the vertical pass first: the height shrinks, and by more than
    twice as much as the width."""
    pixels = random_pixels(*size)
    np.testing.assert_array_equal(resize_box(pixels, new_size, (0, 0, *new_size)), whole(pixels, new_size))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 9)], ids=str)
def test_the_same_size_gives_the_same_pixels(size: tuple[int, int]) -> None:
    pixels = random_pixels(*size)
    np.testing.assert_array_equal(resize_box(pixels, size, (0, 0, *size)), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_number_of_channels_is_resized_alone(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    found = resize_box(pixels, (11, 13), (2, 3, 10, 12))
    for channel in range(channels):
        alone = Image.fromarray(pixels[..., channel]).resize((11, 13), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[..., channel], np.asarray(alone)[3:12, 2:10])


def test_the_result_is_contiguous_uint8_and_the_source_untouched() -> None:
    pixels = random_pixels(30, 20)
    before = pixels.copy()
    found = resize_box(pixels, (60, 40), (1, 2, 50, 30))
    assert (found.dtype, found.shape, found.flags.c_contiguous) == (np.uint8, (28, 49, 3), True)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_flat_picture_stays_flat(value: int) -> None:
    """The fixed-point weights add up to one well enough for every level."""
    pixels = np.full((37, 53, 3), value, np.uint8)
    for size in [(7, 5), (53, 400), (300, 37), (1, 1)]:
        assert (resize_box(pixels, size, (0, 0, *size)) == value).all(), size
