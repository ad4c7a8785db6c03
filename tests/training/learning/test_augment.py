import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from training.config import Recipe
from training.learning.augment import BLANK, Blur, Noise, augmented, train_transform
from training.networks.normalization import MEAN, STD, normalized

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
PLAIN = {"min_scale": 1, "horizontal_flip": 0, "color_jitter": 0, "trivial_augment": False}
STRENGTHS = {
    "min_scale": (0.01, 1), "horizontal_flip": (0, 1), "vertical_flip": (0, 1), "rotation": (0, 180),
    "translation": (0, 1), "scale": (0, 0.9), "color_jitter": (0, 1), "noise": (0, 1), "blur": (0, 10),
    "erasing": (0, 1),
}  # fmt: skip


@pytest.fixture
def photo():
    return PICTURE


def view(photo, number=0, **fields):
    """What a recipe makes of a photo, with all that is not named off."""
    return augmented(train_transform(Recipe(train_size=32, **{**PLAIN, **fields})), photo, (number,))


def grey(side=64, value=200):
    return Image.new("RGB", (side, side), (value, value, value))


def is_blank(pixels):
    return (pixels == torch.tensor(BLANK, dtype=torch.uint8).view(3, 1, 1)).all(0)


@pytest.mark.parametrize("trivial", [True, False])
def test_a_view_depends_on_its_key_alone(photo, trivial):
    """Whatever was drawn before, the same key gives the same view, and the random state is left as it was."""
    transform = train_transform(Recipe(train_size=32, trivial_augment=trivial))
    first = augmented(transform, photo, (0, 1, 2))
    torch.rand(7)
    state = torch.get_rng_state()
    assert torch.equal(augmented(transform, photo, (0, 1, 2)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8


def test_other_epochs_and_photos_have_other_views(photo):
    transform = train_transform(Recipe(train_size=32))
    views = [augmented(transform, photo, key) for key in [(0, 1, 2), (0, 2, 2), (0, 1, 3), (1, 1, 2)]]
    assert not any(torch.equal(views[0], view) for view in views[1:])


def test_the_random_state_survives_a_failing_transform(photo):
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


def test_the_default_recipe_is_crop_mirror_and_trivial_augment(photo):
    """What is off draws nothing, so new kinds of augmentation leave the views of the default recipe as they were."""
    recipe = Recipe()
    expected = v2.Compose(
        [
            v2.RandomResizedCrop(recipe.train_size, scale=(0.25, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            v2.PILToTensor(),
        ]
    )
    for epoch in range(5):
        key = (0, epoch, 7)
        assert torch.equal(augmented(train_transform(recipe), photo, key), augmented(expected, photo, key))


strength = st.fixed_dictionaries(
    {name: st.sampled_from([low, high]) | st.floats(low, high) for name, (low, high) in STRENGTHS.items()}
)


@settings(deadline=None, max_examples=40)
@given(
    strength, st.booleans(), st.integers(0, 2**32), st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([32, 33, 50]),
)  # fmt: skip
def test_every_mixture_of_strengths_gives_a_view_of_the_right_size(strengths, trivial, number, size, side):
    """For photos of any size, the same again for the same key, and without a trace in the random state."""
    transform = train_transform(Recipe(train_size=side, trivial_augment=trivial, **strengths))
    state = torch.get_rng_state()
    first, second = (augmented(transform, PICTURE.resize(size), (number,)) for _ in range(2))
    assert first.shape == (3, side, side)
    assert first.dtype == torch.uint8
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_with_everything_off_a_view_shows_what_answering_does(photo):
    """The short side at resize, then the middle: scaled to the training size."""
    fields = {"train_size": 32, "resize": 40, "crop": 32, **PLAIN}
    view = augmented(train_transform(Recipe(**fields)), photo, (0,))
    middle = photo.resize((53, 40), Image.Resampling.BILINEAR).crop((10, 4, 42, 36))
    assert torch.equal(view, v2.functional.pil_to_tensor(middle))


@pytest.mark.parametrize(("field", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_flips_mirror_their_own_axis(photo, field, axis):
    assert torch.equal(view(photo, **{field: 1}), view(photo).flip(axis))
    mirrored = sum(torch.equal(view(photo, number, **{field: 0.3}), view(photo).flip(axis)) for number in range(200))
    assert 40 <= mirrored <= 80


@pytest.mark.parametrize("field", [*sorted(set(STRENGTHS) - {"min_scale"}), "trivial_augment"])
def test_each_strength_changes_views_by_itself(photo, field):
    strong = True if field == "trivial_augment" else STRENGTHS[field][1]
    assert any(not torch.equal(view(photo, number, **{field: strong}), view(photo)) for number in range(5))


@pytest.mark.parametrize("fields", [{"rotation": 90}, {"translation": 0.5}, {"scale": 0.9}])
def test_what_a_moved_photo_uncovers_is_blank(fields):
    blank = max(int(is_blank(view(grey(), number, **fields)).sum()) for number in range(5))
    assert blank > 50


def test_a_scaled_photo_grows_and_shrinks():
    disc = Image.new("RGB", (64, 64))
    disc.paste((255, 255, 255), (24, 24, 40, 40))
    areas = [int((view(disc, number, scale=0.5)[0] > 128).sum()) for number in range(40)]
    plain = int((view(disc)[0] > 128).sum())
    assert min(areas) < 0.6 * plain
    assert 1.6 * plain < max(areas) <= 2.6 * plain


def test_noise_rounds_to_the_nearest_value():
    """Weak noise changes as many pixels as the normal distribution says, both ways alike; nothing leaves 0..255."""
    torch.manual_seed(0)
    noise = Noise(1 / 255)
    pixels = torch.full((3, 200, 200), 100, dtype=torch.uint8)
    deviations = torch.stack([noise(pixels).float() - 100 for _ in range(40)])
    assert deviations.mean().abs() < 0.002
    assert 1 / 3 < deviations.square().mean() < 1 / 3 + 1 / 12  # deviations drawn from 0 to 1, and at most rounding's
    loud = Noise(1.0)(torch.tensor([0, 255], dtype=torch.uint8).repeat(500).view(1, 10, 100))
    assert {0, 255} <= set(loud.flatten().tolist())


@pytest.mark.parametrize("largest", [0.1, 1, 3, 10])
def test_blur_is_that_of_torchvision(photo, largest):
    """The same deviation with torchvision's kernel of two dimensions, but for rounding."""
    pixels = view(photo)
    torch.manual_seed(1)
    deviation = largest * torch.rand(()).item()
    expected = v2.functional.gaussian_blur(pixels, [61, 61], [deviation, deviation])
    torch.manual_seed(1)
    assert (Blur(largest)(pixels).int() - expected.int()).abs().max() <= 1


def test_what_is_erased_stays_blank_under_noise():
    """Erasing is the last step: a blank rectangle in a noisy photo."""
    pixels = view(grey(), erasing=1, noise=1)
    blank = is_blank(pixels)
    rows, columns = blank.any(1).nonzero().flatten(), blank.any(0).nonzero().flatten()
    assert 0.02 * 32 * 32 * 0.5 < blank.sum() < 0.4 * 32 * 32
    assert blank[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert pixels[:, ~blank].float().std() > 5


def test_erasing_meets_its_share_of_the_views():
    erased = sum(bool(is_blank(view(grey(), number, erasing=0.25)).any()) for number in range(200))
    assert 30 <= erased <= 70
