import collections

import numpy as np
import pytest
import torch

from training import pipeline
from training.config import Machine, Recipe
from training.dataset.data import Photo
from training.networks import weights
from training.progress import Silent
from training.runs.records import TrainingRequest
from training.transfer import depths


@pytest.mark.parametrize(
    ("blocks", "expected"), [(19, (2, 5, 7, 10, 12, 14, 17, 19)), (4, (1, 2, 3, 4)), (8, tuple(range(1, 9)))]
)
def test_depths_are_spread_evenly_and_end_with_all_blocks(blocks, expected):
    assert depths.chosen_depths(blocks) == expected


def test_a_sample_is_bounded_and_keeps_the_shares_of_the_classes():
    photos = [Photo(f"{number}", "rare" if number % 10 == 0 else "often", f"{number:064}") for number in range(1000)]
    photos.append(Photo("one", "single", "f" * 64))
    found = depths.sample(photos, 100)
    counts = collections.Counter(photo.label for photo in found)
    assert 95 <= len(found) <= 105
    assert counts["often"] == pytest.approx(9 * counts["rare"], abs=9)
    assert counts["single"] == 1
    assert depths.sample(photos[::-1], 100) != photos[:100]
    assert set(depths.sample(photos[::-1], 100)) == set(found)  # whatever the order
    assert depths.sample(photos, 5000) == photos


def test_features_of_all_depths_come_from_one_pass_and_the_last_is_the_heads_input(
    photos, recipe, backbone_file, tmp_path
):
    request = TrainingRequest(photos, "colours", str(backbone_file), tmp_path / "runs")
    started = pipeline.begin(request, recipe(), Silent())
    context = pipeline.context_of(started, Machine("cpu", 1))
    model = weights.build(Recipe(), 3, str(backbone_file))
    chosen = context.photos("val")
    found = depths.compute(model, chosen, context, tmp_path / "cache", Silent())
    again = depths.compute(model, chosen, context, tmp_path / "cache", Failing())
    assert list(found) == list(depths.chosen_depths(19))
    assert [found[blocks].shape[1] for blocks in (2, 5, 19)] == [16, 32, 1280]
    assert all(np.array_equal(found[blocks], again[blocks]) for blocks in found)
    pixels = np.stack([context.preprocessing((photos / photo.path).read_bytes()) for photo in chosen])
    expected = depths.torch_infer(model.pooled, model)(pixels)
    assert np.allclose(found[19], expected, atol=1e-3)
    early = depths.torch_infer(lambda photos: model.features[:2](photos).mean((2, 3)), model)(pixels)
    assert np.allclose(found[2], early, atol=1e-3)


def test_features_that_are_no_map_are_taken_as_they_are():
    model = weights.build(Recipe(), 3, "none")
    model.features = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity())
    first, last = depths.pooled(model, torch.ones(2, 3, 4, 4), (1, 2))
    assert first.shape == last.shape == (2, 48)


class Failing(Silent):
    """Allows nothing to be computed."""

    def track(self, items, what, total):
        raise AssertionError(what)
