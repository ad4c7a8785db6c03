import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.learning.objective import class_weights


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
