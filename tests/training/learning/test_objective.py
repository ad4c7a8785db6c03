import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from training.config import Recipe
from training.learning.objective import Objective, class_weights
from training.networks.normalization import normalized

CPU = torch.device("cpu")
TARGETS = torch.tensor([0, 0, 0, 1, 2, 0])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 3))


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def objective(**fields):
    return Objective(Recipe(**{"precision": "fp32", "label_smoothing": 0.0, "mixup": 0.0, **fields}), TARGETS, 3, CPU)


def test_it_is_the_mean_cross_entropy_with_smoothed_labels(network, pixels):
    found = objective(label_smoothing=0.1)(network, pixels, TARGETS, 0)
    expected = cross_entropy(network(normalized(pixels)), TARGETS, label_smoothing=0.1)
    assert torch.equal(found, expected)


def test_class_weights_count_each_photo_by_the_rarity_of_its_class(network, pixels):
    weights = class_weights(TARGETS, 3)
    losses = -log_softmax(network(normalized(pixels)), 1)[range(6), TARGETS]
    found = objective(balance="weights")(network, pixels, TARGETS, 0)
    assert torch.allclose(found, (weights[TARGETS] * losses).mean())


def test_parts_of_a_weighted_batch_add_up_to_the_whole(network, pixels):
    """So several processes, or batches of one update, learn what one large batch teaches."""
    weighted = objective(balance="weights", label_smoothing=0.1)
    whole = weighted(network, pixels, TARGETS, 0)
    parts = weighted(network, pixels[:4], TARGETS[:4], 0) * 4 + weighted(network, pixels[4:], TARGETS[4:], 0) * 2
    assert torch.allclose(whole, parts / 6)


@pytest.mark.parametrize("kind", ["none", "weights"])
def test_mixed_photos_count_for_their_classes_by_their_shares(network, pixels, kind):
    mixing = objective(mixup=1.0, balance=kind)
    found = mixing(network, pixels, TARGETS, 3)
    mixed, shares = mixing._mixer(pixels, TARGETS, 3)
    weights = class_weights(TARGETS, 3) if kind == "weights" else torch.ones(3)
    expected = -(weights * shares * log_softmax(network(normalized(mixed)), 1)).sum() / 6
    assert torch.allclose(found, expected)
    assert not torch.equal(mixing(network, pixels, TARGETS, 4), found)
