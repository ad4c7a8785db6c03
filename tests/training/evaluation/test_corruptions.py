import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.preprocessing import Preprocessing
from training import pipeline
from training.config import Machine
from training.dataset.data import Photo
from training.evaluation.corruptions import CORRUPTIONS, Corrupted
from training.evaluation.intervals import wilson
from training.evaluation.robustness import EvaluationTask, under_corruptions
from training.inference import batches
from training.progress import Silent

PREPROCESSING = Preprocessing()


def scene(width=300, height=200, seed=0):
    """Coloured shapes on a slope of grey: something for every corruption to spoil."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns % 256, rows % 256, (rows + columns) % 256], 2).astype(np.uint8)
    rng = np.random.default_rng(seed)
    for _ in range(6):
        top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
        pixels[top : top + 40, left : left + 40] = rng.integers(0, 256, 3)
    return pixels


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_mild_and_the_same_every_time(name):
    """It changes the photo, leaves it recognisable, and knows no state but the photo's content."""
    data = encoded(scene())
    clean, corrupted = PREPROCESSING(data), Corrupted(PREPROCESSING, name)(data)
    assert corrupted.shape == clean.shape
    assert corrupted.dtype == np.uint8
    difference = np.abs(clean.astype(int) - corrupted).mean()
    assert 0.5 < difference < 60
    assert np.corrcoef(clean.ravel(), corrupted.ravel())[0, 1] > 0.4
    assert np.array_equal(corrupted, Corrupted(PREPROCESSING, name)(data))


@pytest.mark.parametrize("name", ["noise", "occlusion", "rotation"])
def test_chance_differs_from_photo_to_photo(name):
    """By content, also between photos that are told apart by nothing else."""
    grey = np.full((64, 64, 3), 90, np.uint8)
    if name == "rotation":
        grey[:, :32] = 200
    other = grey.copy()
    other[0, 0] += 1
    first, second = (Corrupted(PREPROCESSING, name)(encoded(pixels)) for pixels in (grey, other))
    assert np.abs(first.astype(int) - second).mean() > 0.3


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 41)])
def test_small_and_thin_photos_are_corrupted_too(name, size):
    data = encoded(np.full((*size, 3), 77, np.uint8))
    assert Corrupted(PREPROCESSING, name)(data).shape == (224, 224, 3)


@pytest.mark.parametrize("name", ["noise", "blur", "motion blur", "low resolution"])
def test_a_larger_photo_is_spoiled_as_much_as_a_small_one(name):
    """Lengths grow with the photo, so that what the model sees does not depend on the camera."""
    small = scene(320, 256)
    large = np.asarray(Image.fromarray(small).resize((1280, 1024), Image.Resampling.BICUBIC))
    lost = []
    for pixels in (small, large):
        data = encoded(pixels)
        lost.append(np.abs(PREPROCESSING(data).astype(int) - Corrupted(PREPROCESSING, name)(data)).mean())
    assert lost[1] == pytest.approx(lost[0], rel=0.5)


def test_every_corruption_is_answered_and_told_against_the_clean_photos(tmp_path: Path):
    """A model that sees brightness alone loses by brightness, and nothing by blur."""
    photos = []
    for label, value in (("dark", 100), ("light", 128)):
        for number in range(4):
            data = encoded(np.full((40, 50, 3), value + number % 2, np.uint8))
            (tmp_path / f"{label}{number}").write_bytes(data)
            photos.append(Photo(f"{label}{number}", label, hashlib.sha256(data).hexdigest()))

    def infer(pixels):
        light = pixels.mean((1, 2, 3)) > 114
        return np.stack([~light, light], 1).astype(np.float32)

    task = EvaluationTask(tmp_path, photos, ("dark", "light"), PREPROCESSING, infer, batches.Parallelism(1, 3))
    rows = {row.corruption: row for row in under_corruptions(task, 1.0, Silent())}
    assert list(rows) == list(CORRUPTIONS)
    assert (rows["blur"].top1, rows["blur"].lost) == (1, 0)
    bright = rows["brightness"]
    assert bright.top1 < 1
    assert bright.lost == pytest.approx(1 - bright.top1)
    assert bright.top1_interval == wilson(round(bright.top1 * 8), 8)


def test_a_runs_corruptions_are_kept_in_its_evaluation(finished, tmp_path, monkeypatch):
    """One corruption stands for all; the run's own record keeps its other figures."""
    monkeypatch.setattr("training.evaluation.robustness.CORRUPTIONS", {"blur": CORRUPTIONS["blur"]})
    found = pipeline.evaluate_any(finished.run.path, None, Machine("cpu", 2), Silent(), corrupted=True)
    assert [row.corruption for row in found.corruptions] == ["blur"]
    assert dataclasses.replace(found, corruptions=()) == finished.run.evaluation()
    of_bundle = pipeline.evaluate_any(
        finished.bundle.path, Path(finished.run.source().data), Machine("cpu", 2), Silent(), corrupted=True
    )
    assert of_bundle.corruptions[0].lost == pytest.approx(of_bundle.metrics.top1 - of_bundle.corruptions[0].top1)
