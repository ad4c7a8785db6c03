import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200))
def test_every_class_that_is_there_weighs_the_same(targets):
    """The photos of each class weigh as much together as those of any other, and a photo weighs 1 on average."""
    targets = torch.tensor(targets)
    weights = class_weights(targets, 6)
    assert weights.dtype == torch.float32
    assert weights[targets].mean().item() == pytest.approx(1, rel=1e-5)
    totals = [weights[targets[targets == label]].sum().item() for label in targets.unique()]
    assert totals == pytest.approx([len(targets) / len(totals)] * len(totals), rel=1e-5)
    assert all(weights[label] == 0 for label in range(6) if label not in targets)


def test_a_rare_class_weighs_more():
    assert class_weights(torch.tensor([0, 0, 0, 1]), 2).tolist() == pytest.approx([2 / 3, 2])
