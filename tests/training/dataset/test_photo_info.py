import io

import numpy as np
import pytest
from PIL import Image

from bundle.preprocessing import decode
from training.dataset.photo_info import PhotoInfo, photo_info


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data):
    return photo_info(data, decode(data))


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 80, 3)).astype(np.uint8))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_size_format_and_sides(photo):
    data = encoded(photo, "PNG")
    found = seen(data)
    assert found == PhotoInfo(len(data), 80, 30, "PNG", grey=False, turned=False)
    assert (found.short_side, found.aspect) == (30, 80 / 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_photo_is_measured_upright(photo, kind):
    found = seen(encoded(photo, kind, exif=exif(6)))
    assert (found.width, found.height, found.turned) == (30, 80, True)
    assert not seen(encoded(photo, kind, exif=exif(1))).turned


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:Possibly corrupt:UserWarning")
@pytest.mark.parametrize("damaged", [b"not TIFF at all", b"II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damaged_exif_turns_nothing(photo, damaged, kind):
    assert not seen(encoded(photo, kind, exif=b"Exif\0\0" + damaged)).turned


def test_grey_is_what_shows_no_colour_however_it_is_stored(photo):
    assert seen(encoded(photo.convert("L"), "PNG")).grey
    assert seen(encoded(photo.convert("L").convert("RGB"), "JPEG")).grey
    assert not seen(encoded(photo, "JPEG")).grey
