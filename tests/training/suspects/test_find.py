"""Planted among drawn photos: a wrong label, a near-copy and a photo of noise; each must be found first."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from bundle.preprocessing import decode
from training.config import Machine
from training.dataset import split
from training.progress import Silent
from training.suspects import copies, inspection
from training.suspects.records import Copy, InspectedPhoto, LabelSuspect, Outlier, Suspects

MACHINE = Machine("cpu", 2)


SHADES = {"dark": (25, 25, 25), "light": (230, 230, 230), "red": (230, 25, 25)}


def draw(folder, count):
    """So different classes that random weights tell them apart; every photo has its own grain."""
    for label, shade in SHADES.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            grain = np.random.default_rng([len(label), number]).integers(-40, 41, (40, 48, 3))
            pixels = np.clip(np.array(shade) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03}.png")


def inspected(root, weights):
    options = inspection.InspectionOptions(weights=str(weights), folds=4, runs=root / "runs")
    return inspection.suspects(root / "photos", options, MACHINE, Silent())


@pytest.fixture(scope="module")
def clean(backbone_file, tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    draw(root / "photos", 16)
    return inspected(root, backbone_file)[0]


@pytest.fixture(scope="module")
def planted(backbone_file, tmp_path_factory):
    """The same photos with one suspect of each kind, and the page that shows them."""
    root = tmp_path_factory.mktemp("planted")
    folder = root / "photos"
    draw(folder, 16)
    shutil.move(folder / "red" / "003.png", folder / "dark" / "swapped.png")
    with Image.open(folder / "light" / "007.png") as image:
        image.resize((72, 60), Image.Resampling.BICUBIC).save(folder / "light" / "copy.jpg", quality=80)
    noise = np.random.default_rng(5).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "red" / "noise.png")
    found, subject = inspected(root, backbone_file)
    return found, inspection.write(found, subject, root / "out", 2)


def test_clean_photos_yield_no_suspects(clean):
    assert (clean.photos, clean.labels, clean.copies, clean.outliers) == (48, (), (), ())


def test_a_swapped_label_is_found_first(planted):
    found, _ = planted
    assert found.labels[0].photo.path == "dark/swapped.png"
    assert found.labels[0].suggested == "red"
    assert found.labels[0].probability_suggested > found.labels[0].probability


def test_a_near_copy_is_found_first(planted):
    found, _ = planted
    pair = found.copies[0]
    assert {pair.first.path, pair.second.path} == {"light/007.png", "light/copy.jpg"}
    assert len(found.copies) == 1


def test_a_photo_of_noise_is_found_first(planted):
    found, _ = planted
    assert found.outliers[0].photo.path == "red/noise.png"


def test_every_photo_is_told_with_its_part_of_the_split(planted):
    found, page = planted
    moved = page.parent.parent / "photos" / "dark" / "swapped.png"
    assert found.labels[0].photo.part == split.place(hashlib.sha256(moved.read_bytes()).hexdigest(), 0)
    assert json.loads((page.parent / "suspects.json").read_text())["photos"] == 50


def test_the_page_shows_them_and_needs_nothing_from_outside(planted):
    _, page = planted
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 4
    assert 'src="data:' in text
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text
    assert "light/copy.jpg" in text


def test_what_is_dangerous_about_a_copy_is_said_and_text_is_escaped(finished, photos):
    """The same photo under two labels, and on both sides of the split."""
    first, second = InspectedPhoto("blue/000.png", "<b>blue", "train"), InspectedPhoto("red/000.png", "red", "test")
    pair = Copy(first, second, 1.0, 1.0)
    assert (pair.labels_differ, pair.parts_differ) == (True, True)
    subject = inspection._of_run(finished.run, MACHINE)
    found = Suspects("x", 2, (LabelSuspect(first, "red", 0.1, 0.9),) * 3, (pair,), (Outlier(second, 4.0),))
    page = inspection.render(found, subject, 2)
    assert '<span class="bad">&lt;b&gt;blue and red</span>' in page
    assert '<span class="bad">train and test</span>' in page
    assert "3, the first 2 of them" in page
    assert "<b>blue<" not in page


@pytest.mark.parametrize("change", ["recoded", "small", "brighter"])
def test_thumbnails_stay_alike_when_a_photo_is_changed_a_little(change, photos):
    """Blurred noise stands for a photo: smooth, with structure everywhere."""
    rng = np.random.default_rng(1)
    scenes = [
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
        for _ in range(2)
    ]
    changed = {
        "recoded": scenes[0],
        "small": scenes[0].resize((107, 80), Image.Resampling.BILINEAR),
        "brighter": scenes[0].point(lambda value: min(255, int(value * 1.1))),
    }[change]
    small = []
    for image in (*scenes, changed):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        small.append(copies.thumbnail(buffer.getvalue()))
    first, other, again = copies.without_tint(np.stack(small))
    assert first @ again > 0.985
    assert first @ other < 0.6


def test_plain_photos_are_like_nothing(photos):
    grey = np.full((2, 16, 16, 3), 90, np.uint8)
    assert not copies.without_tint(grey).any()
    assert decode((photos / "red" / "000.png").read_bytes()).size == (48, 40)
