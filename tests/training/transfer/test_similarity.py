import numpy as np
import pytest

from training.transfer import similarity


def clouds(count, noise, width=20, classes=3, seed=0):
    """Class k lies around the k-th axis, far from the origin."""
    generator = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    return (5 + np.eye(classes, width)[targets] + noise * generator.normal(size=(count, width))), targets


@pytest.mark.parametrize("score", [similarity.linear_score, similarity.knn_score])
def test_what_is_apart_scores_1_and_noise_scores_chance(score):
    assert score(*clouds(90, 0.1)) == 1.0
    assert score(*clouds(300, 1000.0)) == pytest.approx(1 / 3, abs=0.1)


def test_more_features_than_photos_do_not_flatter_the_probe():
    """Fitted on all photos it would be perfect; held-out photos tell the truth."""
    assert similarity.linear_score(*clouds(60, 1000.0, width=500)) < 0.6


def test_holding_out_equals_fitting_again_without_the_fold():
    features, targets = clouds(30, 1.0, width=4, seed=1)
    wanted, fold = np.eye(3)[targets], similarity.folds(targets)
    basis, shares = similarity._principal(features)
    fast = similarity._held_out(basis, shares, wanted, fold, 0.5)
    penalty = 0.5 / len(shares) * features.var(0).sum() * len(features)
    for part in range(5):
        others, inside = fold != part, fold == part
        x, y, middle = features[others], wanted[others], features[others].mean(0)
        weight = np.linalg.solve((x - middle).T @ (x - middle) + penalty * np.eye(4), (x - middle).T @ (y - y.mean(0)))
        answers = (features[inside] - middle) @ weight + y.mean(0)
        assert np.allclose(fast[inside], wanted[inside] - answers, atol=1e-6)


def test_every_fold_has_its_share_of_every_class():
    targets = np.array([0] * 10 + [1] * 20 + [3] * 5)
    fold = similarity.folds(targets)
    assert [np.bincount(fold[targets == label]).tolist() for label in (0, 1, 3)] == [[2] * 5, [4] * 5, [1] * 5]
    assert fold[:10].tolist() == sorted(fold[:10])
    assert similarity.folds(np.array([0, 0, 0, 1, 1])).max() == 1  # as few folds as the smallest class has photos
    assert similarity.folds(np.array([0, 1])).tolist() == [0, 1]  # never one fold alone


def test_neighbours_see_rings_that_no_line_separates():
    places = np.random.default_rng(0).permutation(120)
    angles, targets = places * 2 * np.pi / 120, places // 10 % 2  # twelve arcs of alternating class
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert similarity.knn_score(ring, targets) > 0.7
    assert similarity.linear_score(ring, targets) < 0.7


def test_a_tie_goes_to_the_nearer_neighbours():
    """In the other folds are two of each class, and the two of a photo's own class are nearer."""
    turned = np.deg2rad([0, 5, 10, 170, 180, 190])
    rows = np.stack([np.cos(turned), np.sin(turned)], 1)
    assert similarity.knn_score(rows, np.array([0, 0, 0, 1, 1, 1])) == 1.0


def test_features_that_do_not_vary_score_no_better_than_chance():
    targets = np.arange(30) % 3
    assert similarity.linear_score(np.ones((30, 8), np.float32), targets) <= 1 / 3
    assert similarity.knn_score(np.ones((30, 8), np.float32), targets) <= 1 / 3


def test_depths_are_measured_in_rising_order_against_the_largest_class():
    good, targets = clouds(40, 0.1, classes=2)
    targets[:10] = 0
    found = similarity.measure({9: good.astype(np.float32), 3: np.ones((40, 2), np.float32)}, targets)
    assert [depth.blocks for depth in found.depths] == [3, 9]
    assert found.depths[1].linear > found.depths[0].linear
    assert (found.photos, found.chance) == (40, 25 / 40)
