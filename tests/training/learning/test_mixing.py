import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import Recipe
from training.learning.mixing import Mixer

CLASSES = 5


def batch(size=8, seed=0, dtype=torch.uint8):
    """Pictures of one value each, which is 50 times their class."""
    targets = torch.randint(CLASSES, (size,), generator=torch.Generator().manual_seed(seed))
    pixels = (50 * targets).to(dtype).view(-1, 1, 1, 1).expand(-1, 3, 24, 20).contiguous()
    return pixels, targets


def test_without_mixing_a_batch_stays_as_it_is():
    pixels, targets = batch()
    mixed = Mixer(Recipe(mixup=0), CLASSES)(pixels, targets, 3)
    assert mixed[0] is pixels
    assert mixed[1] is targets


@settings(deadline=None)
@given(
    st.sampled_from([{"mixup": 1}, {"mixup": 0, "cutmix": 1}, {"mixup": 0.2, "cutmix": 0.5}]),
    st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([torch.uint8, torch.float32]),
)  # fmt: skip
def test_a_mixed_target_says_how_much_of_each_photo_is_seen(strengths, size, step, dtype):
    """Shares sum to 1, and weigh the pixels' values to just the mean value of the mixed photo."""
    pixels, targets = batch(size, step, dtype)
    before = pixels.clone()
    state = torch.get_rng_state()
    mixed, shares = Mixer(Recipe(**strengths), CLASSES)(pixels, targets, step)
    assert (mixed.dtype, shares.dtype) == (torch.float32, torch.float32)
    assert mixed.shape == pixels.shape
    assert shares.shape == (size, CLASSES)
    assert (shares >= 0).all()
    assert shares.sum(1).tolist() == pytest.approx([1] * size)
    expected = shares @ (50.0 * torch.arange(CLASSES))
    assert mixed.mean((1, 2, 3)).tolist() == pytest.approx(expected.tolist(), abs=1e-3)
    assert torch.equal(pixels, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_step_is_mixed_the_same_again_and_another_one_otherwise():
    recipe = Recipe(mixup=1.0, cutmix=1.0)
    first = Mixer(recipe, CLASSES)(*batch(), 7)
    torch.rand(5)
    again = Mixer(recipe, CLASSES)(*batch(), 7)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for other in (Mixer(recipe, CLASSES)(*batch(), 8), Mixer(Recipe(seed=1, mixup=1, cutmix=1), CLASSES)(*batch(), 7)):
        assert not torch.equal(first[1], other[1])


def test_mixup_and_cutmix_share_the_steps():
    """A blended photo still has one value; a photo with a pasted part has two."""
    mixer = Mixer(Recipe(mixup=1.0, cutmix=1.0), 2)
    pixels = torch.tensor([0, 200], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 24, 20)
    pasted = 0
    for step in range(200):
        mixed, _ = mixer(pixels, torch.tensor([0, 1]), step)
        pasted += set(mixed.unique().tolist()) <= {0.0, 200.0}
    assert 70 <= pasted <= 130
