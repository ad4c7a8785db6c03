import dataclasses

import numpy as np
import pytest
import torch

from bundle.preprocessing import Preprocessing
from training.config import Recipe
from training.dataset import data
from training.inference.batches import BatchInference, Parallelism
from training.networks import weights
from training.progress import Silent
from training.transfer import features

SMALL = Preprocessing(resize=40, crop=32)
PARALLELISM = Parallelism(2, 4)


class Counting(Silent):
    """Notes how many batches were really computed, and what was said."""

    def __init__(self):
        self.batches, self.said = 0, []

    def track(self, items, what, total):
        self.batches += total
        return iter(items)

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def model(backbone_file):
    return weights.build(Recipe(), 3, str(backbone_file))


@pytest.fixture
def found(photos):
    return data.scan(photos, Silent()).photos[:10]


def compute(photos, found, model, cache, preprocessing=SMALL):
    reporter = Counting()
    rows = features.compute(BatchInference(photos, PARALLELISM, reporter), found, model, preprocessing, cache)
    return rows, reporter


def test_the_second_time_nothing_is_computed(photos, found, model, tmp_path):
    cache = features.cache_for(tmp_path, model, SMALL)
    first, computed = compute(photos, found, model, cache)
    second, again = compute(photos, found, model, cache)
    assert (computed.batches, again.batches) == (3, 0)
    assert np.array_equal(first, second)
    assert first.shape == (10, 1280)


def test_rows_are_those_of_the_unfolded_backbone(photos, found, model, tmp_path):
    rows, _ = compute(photos, found[:2], model, features.cache_for(tmp_path, model, SMALL))
    pixels = np.stack([SMALL((photos / photo.path).read_bytes()) for photo in found[:2]])
    infer = features.torch_infer(model.pooled, model)
    assert np.allclose(rows, infer(pixels), atol=1e-3)


def test_added_photos_alone_are_computed(photos, found, model, tmp_path):
    cache = features.cache_for(tmp_path, model, SMALL)
    compute(photos, found[:6], model, cache)
    rows, reporter = compute(photos, found[::-1], model, cache)
    assert reporter.batches == 1
    assert np.array_equal(rows[::-1][:6], compute(photos, found[:6], model, cache)[0])


def test_the_key_covers_weights_and_preprocessing(model, tmp_path):
    """Other weights, other preprocessing: another folder, so a stale row can never be read."""
    base = features.cache_for(tmp_path, model, SMALL)
    assert features.cache_for(tmp_path, model, SMALL) == base
    assert features.cache_for(tmp_path, model, dataclasses.replace(SMALL, crop=33)) != base
    with torch.no_grad():
        model.head.weight.add_(1)
    assert features.cache_for(tmp_path, model, SMALL) == base  # the head has no part in features
    with torch.no_grad():
        next(model.features.parameters()).add_(1)
    assert features.cache_for(tmp_path, model, SMALL) != base


def test_a_damaged_cache_file_is_said_and_computed_again(photos, found, model, tmp_path):
    cache = features.cache_for(tmp_path, model, SMALL)
    first, _ = compute(photos, found, model, cache)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    again, reporter = compute(photos, found, model, cache)
    assert np.array_equal(first, again)
    assert reporter.batches == 3
    assert "is damaged" in reporter.said[0]
