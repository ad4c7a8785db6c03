import torch

from training.learning.objective import class_weights
from training.transfer import head
from training.transfer.head import Examples


def examples(count, seed, noise):
    """Three Gaussian clouds in 20 dimensions, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    centers = torch.eye(3, 20)[targets] * 2
    features = centers + noise * torch.randn(count, 20, generator=generator)
    return Examples(features / 10 + 5, targets)


def test_it_separates_what_is_separable():
    found = head.fit(examples(300, 0, 0.3), examples(90, 1, 0.3), 3, 0.0)
    test = examples(90, 2, 0.3)
    predicted = (test.features @ found.weight.T + found.bias).argmax(1)
    assert (predicted == test.targets).float().mean() > 0.97
    assert found.best.val_top1 > 0.97


def test_strength_is_chosen_by_validation_loss():
    found = head.fit(examples(60, 0, 1.5), examples(300, 1, 1.5), 3, 0.1)
    assert found.best == min(found.trials, key=lambda trial: trial.val_loss)
    strengths = [trial.l2 for trial in found.trials]
    assert strengths == sorted(strengths, reverse=True)
    assert 1 < len(found.trials) < 13  # noise: weaker is not always better, so the search ends early


def test_the_head_returned_is_the_one_of_the_best_trial():
    val = examples(300, 1, 1.5)
    found = head.fit(examples(60, 0, 1.5), val, 3, 0.1)
    loss = torch.nn.functional.cross_entropy(val.features @ found.weight.T + found.bias, val.targets)
    assert abs(float(loss) - found.best.val_loss) < 1e-5


def test_it_is_deterministic():
    first, second = (head.fit(examples(60, 0, 1.0), examples(60, 1, 1.0), 3, 0.1) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_class_weights_lift_a_rare_class():
    skewed, even = examples(300, 0, 1.5), examples(300, 1, 1.5)
    kept = (skewed.targets > 0) | (torch.arange(300) < 30)
    train = Examples(skewed.features[kept], skewed.targets[kept])

    def share_of_rare(weights):
        found = head.fit(train, even, 3, 0.0, weights)
        return ((even.features @ found.weight.T + found.bias).argmax(1) == 0).float().mean()

    assert share_of_rare(class_weights(train.targets, 3)) > share_of_rare(None) + 0.05


def test_features_that_do_not_vary_give_no_giant_weights():
    """A backbone that answers everything alike must not blow up the first step of fine-tuning."""
    train = Examples(torch.full((60, 20), 7.0), torch.arange(60) % 3)
    assert head.fit(train, train, 3, 0.0).weight.abs().max() < 1e-3
    silent = Examples(torch.zeros(60, 20), torch.arange(60) % 3)
    assert torch.isfinite(head.fit(silent, silent, 3, 0.0).weight).all()
