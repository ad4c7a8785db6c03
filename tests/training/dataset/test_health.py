import shutil

import numpy as np
import pytest
from PIL import Image

from training.dataset import data
from training.dataset.health import health
from training.progress import Silent


def draw(path, size, number=0, grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    (image.convert("L") if grey else image).save(path)
    return path


def measured(folder):
    scanned = data.scan(folder, Silent())
    kept, found = data.check(scanned)
    return health(scanned, kept, found, 0)


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        draw(tmp_path / "blue" / f"{number}.png", (80 + number, 70), number)
        draw(tmp_path / "red" / f"{number}.png", (100, 90), 10 + number)
    return tmp_path


def test_every_class_is_counted(folder):
    shutil.copy(folder / "red" / "1.png", folder / "red" / "copy.png")
    shutil.copy(folder / "red" / "2.png", folder / "blue" / "clash.png")
    (folder / "red" / "text.png").write_text("no photo")
    draw(folder / "red" / "tiny.png", (63, 64), 30, grey=True)
    found = measured(folder)
    blue, red = found.classes
    assert (red.label, red.photos, red.copies, red.conflicting, red.undecodable) == ("red", 6, 1, 1, 1)
    assert (blue.label, blue.photos, blue.copies, blue.conflicting, blue.undecodable) == ("blue", 6, 0, 1, 0)
    assert (red.tiny, red.grey, red.share) == (1, 1 / 8, 0.5)
    assert (red.median_size, red.smallest) == ((100, 90), (63, 64))
    assert blue.median_size == (83, 70)  # of 80 … 85 and the clashing 100
    assert sum(red.parts.values()) == 6
    assert (found.photos, found.imbalance, found.formats) == (12, 1.0, {"PNG": 15})
    assert found.bytes == sum(path.stat().st_size for path in folder.rglob("*.png")) - len("no photo")


def test_turned_and_long_photos_are_found(folder):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (100, 90), "red").save(folder / "red" / "turned.jpg", exif=exif)
    draw(folder / "red" / "long.png", (500, 100), 31)
    draw(folder / "red" / "wide.png", (400, 100), 32)
    found = measured(folder)
    assert found.turned == 1
    assert found.long == ("red/long.png",)
    assert found.formats == {"PNG": 14, "JPEG": 1}
    assert "1 photos are over 4 times as long as wide: the central square shows little of them" in found.advice


def test_the_advice_names_what_is_wrong(folder):
    shutil.copy(folder / "red" / "1.png", folder / "red" / "copy.png")
    shutil.copy(folder / "red" / "2.png", folder / "blue" / "clash.png")
    (folder / "red" / "text.png").write_text("no photo")
    draw(folder / "blue" / "tiny.png", (10, 10), 30)
    advice = measured(folder).advice
    assert advice == (
        "1 files cannot be decoded and are left out: replace or delete them",
        "1 files copy another and are left out",
        "1 groups of equal files under two labels are left out: delete each from the wrong class",
        "'blue' has 7 photos, fewer than 20: add some",
        "'blue' has 1 photos under 64 pixels: they teach blur",
        "'red' has 5 photos, fewer than 20: add some",
    )


def test_a_sound_set_needs_no_advice(tmp_path):
    for number in range(90):
        draw(tmp_path / "red" / f"{number}.bmp", (64, 64), number)
        draw(tmp_path / "blue" / f"{number}.bmp", (64, 64), 100 + number)
    assert measured(tmp_path).advice == ()


def test_skew_and_grey_that_gives_a_class_away_are_told(folder):
    for number in range(61):
        draw(folder / "grey" / f"{number}.png", (64, 64), 50 + number, grey=True)
    found = measured(folder)
    assert found.imbalance == pytest.approx(61 / 6)
    assert "the largest class has 10 times the photos of the smallest: use --balance weights" in found.advice
    assert "most grey photos are of 'grey': a model may learn that instead of the object" in found.advice


def test_few_test_photos_are_told(folder):
    for number in range(20):
        draw(folder / "red" / f"more{number}.png", (64, 64), 50 + number)
    found = measured(folder)
    assert f"'red' has {found.classes[1].parts['test']} test photos: its own figures will be rough" in found.advice


def test_an_empty_class_has_no_sizes_and_no_ratio(folder):
    (folder / "white").mkdir()
    found = measured(folder)
    assert found.imbalance is None
    assert (found.classes[2].median_size, found.classes[2].smallest, found.classes[2].grey) == (None, None, 0)
