import numpy as np
import pytest
import torch
from PIL import Image

from training.config import Recipe
from training.learning.augment import MEAN, STD, augmented, normalized, train_transform


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.mark.parametrize("trivial", [True, False])
def test_a_view_depends_on_its_key_alone(picture, trivial):
    """Whatever was drawn before, the same key gives the same view, and the random state is left as it was."""
    transform = train_transform(Recipe(train_size=32, trivial_augment=trivial))
    first = augmented(transform, picture, (0, 1, 2))
    torch.rand(7)
    state = torch.get_rng_state()
    assert torch.equal(augmented(transform, picture, (0, 1, 2)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8


def test_other_epochs_and_photos_have_other_views(picture):
    transform = train_transform(Recipe(train_size=32))
    views = [augmented(transform, picture, key) for key in [(0, 1, 2), (0, 2, 2), (0, 1, 3), (1, 1, 2)]]
    assert not any(torch.equal(views[0], view) for view in views[1:])


def test_the_random_state_survives_a_failing_transform(picture):
    state = torch.get_rng_state()
    with pytest.raises(TypeError, match="No image"):
        augmented(train_transform(Recipe(train_size=32)), None, (0,))
    assert torch.equal(torch.get_rng_state(), state)


def test_normalisation_is_the_published_one():
    pixels = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    found = normalized(pixels)[0, :, 0, 0]
    expected = [(0.2 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert normalized(pixels.expand(2, 3, 2, 2)).is_contiguous(memory_format=torch.channels_last)
