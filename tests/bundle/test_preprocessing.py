"""The pixels equal torchvision's on a PIL image, bit for bit, for every size and shape."""

import io

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from bundle.preprocessing import DEFAULT_LIMITS, Limits, Preprocessing

transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is the reference")

SIDES = st.integers(1, 700)
EXTREMES = [(1, 100), (100, 1), (6000, 4000), (4000, 6000), (40, 4000), (6000, 60), (300, 30_000), (30_000, 300)]
TEXTURES = ("noise", "smooth", "edges")


def picture(width: int, height: int, texture: str = "noise", seed: int = 0) -> Image.Image:
    """Grain for the arithmetic, a gradient for the rounding, black and white edges for the clipping."""
    random = np.random.default_rng(seed)
    if texture == "noise":
        return Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))
    if texture == "edges":
        return Image.fromarray(random.integers(0, 2, (height, width, 3), np.uint8) * 255)
    rows, columns = np.linspace(0, 200, height)[:, None], np.linspace(0, 55, width)[None, :]
    return Image.fromarray((rows + columns)[..., None].repeat(3, axis=2).astype(np.uint8))


def torchvision_pixels(image: Image.Image, resize: int = 256, crop: int = 224) -> np.ndarray:
    """The reference, called as every torchvision recipe calls it."""
    steps = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])
    return np.asarray(steps(image))


@settings(max_examples=120, deadline=None)
@given(width=SIDES, height=SIDES, texture=st.sampled_from(TEXTURES), seed=st.integers(0, 9))
@example(width=224, height=224, texture="noise", seed=0)
@example(width=256, height=256, texture="noise", seed=0)
@example(width=255, height=257, texture="noise", seed=0)
@example(width=257, height=255, texture="edges", seed=0)
@example(width=1, height=1, texture="noise", seed=0)
@example(width=2, height=1, texture="noise", seed=0)
@example(width=6, height=600, texture="noise", seed=0)
def test_equals_torchvision_for_every_drawn_size(width: int, height: int, texture: str, seed: int) -> None:
    assume(max(width, height) <= 100 * min(width, height))
    image = picture(width, height, texture, seed)
    np.testing.assert_array_equal(Preprocessing().resize_and_crop(image), torchvision_pixels(image))


@pytest.mark.parametrize("size", EXTREMES, ids=str)
def test_equals_torchvision_at_the_extremes(size: tuple[int, int]) -> None:
    image = picture(*size, texture="edges")
    np.testing.assert_array_equal(Preprocessing().resize_and_crop(image), torchvision_pixels(image))


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), sizes=st.sampled_from([(232, 192), (64, 64), (65, 64)]))
def test_equals_torchvision_for_other_sizes(width: int, height: int, sizes: tuple[int, int]) -> None:
    resize, crop = sizes
    image = picture(width, height)
    found = Preprocessing(resize=resize, crop=crop).resize_and_crop(image)
    np.testing.assert_array_equal(found, torchvision_pixels(image, resize, crop))


def test_equals_torchvision_on_photos(photos) -> None:
    """From the file's bytes, as the service and training read it."""
    different = []
    for path in photos:
        with Image.open(path) as image:
            expected = torchvision_pixels(ImageOps.exif_transpose(image).convert("RGB"))
        if not np.array_equal(Preprocessing()(path.read_bytes()), expected):
            different.append(path.name)
    assert not different


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), file=st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_from_bytes_to_pixels_of_the_promised_kind(width: int, height: int, file: str) -> None:
    assume(max(width, height) <= 100 * min(width, height))
    image, buffer = picture(width, height), io.BytesIO()
    image.save(buffer, file)
    found = Preprocessing(resize=72, crop=64)(buffer.getvalue())
    assert (found.dtype, found.shape) == (np.uint8, (64, 64, 3))
    np.testing.assert_array_equal(found, torchvision_pixels(image, 72, 64))


@pytest.mark.parametrize(("resize", "crop"), [(224, 256), (0, 0), (256, 0), (-1, -2), (4097, 224)])
def test_impossible_sizes_are_refused(resize: int, crop: int) -> None:
    with pytest.raises(ValueError, match=f"0 < crop <= resize <= 4096, got crop {crop} and resize {resize}"):
        Preprocessing(resize=resize, crop=crop)


@pytest.mark.parametrize("max_pixels", [0, -1, 2**27 + 1])
def test_a_limit_that_could_not_be_held_is_refused(max_pixels: int) -> None:
    """Pillow's own guard stands at 2**27; a higher limit of ours would not be the one that holds."""
    with pytest.raises(ValueError, match="max_pixels"):
        Limits(max_pixels=max_pixels)


def test_the_limits_are_those_of_the_documentation() -> None:
    assert (DEFAULT_LIMITS.max_bytes, DEFAULT_LIMITS.max_pixels) == (20_000_000, 50_000_000)
