import io

import numpy as np
import pytest
from PIL import Image

from bundle.preprocessing import decode
from training.dataset.look import Look, look


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data):
    return look(data, decode(data))


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 80, 3)).astype(np.uint8))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_size_format_and_sides(picture):
    data = encoded(picture, "PNG")
    found = seen(data)
    assert found == Look(len(data), 80, 30, "PNG", grey=False, turned=False)
    assert (found.short_side, found.aspect) == (30, 80 / 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_picture_is_measured_upright(picture, kind):
    found = seen(encoded(picture, kind, exif=exif(6)))
    assert (found.width, found.height, found.turned) == (30, 80, True)
    assert not seen(encoded(picture, kind, exif=exif(1))).turned


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Possibly corrupt:UserWarning")
@pytest.mark.parametrize("damaged", [b"not TIFF at all", b"II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damaged_exif_turns_nothing(picture, damaged, kind):
    assert not seen(encoded(picture, kind, exif=b"Exif\0\0" + damaged)).turned


def test_grey_is_what_shows_no_colour_however_it_is_stored(picture):
    assert seen(encoded(picture.convert("L"), "PNG")).grey
    assert seen(encoded(picture.convert("L").convert("RGB"), "JPEG")).grey
    assert not seen(encoded(picture, "JPEG")).grey
