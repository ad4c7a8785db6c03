from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from training.learning.sampling import GradientAccumulation, balanced, permutation

targets = st.lists(st.integers(0, 4), min_size=1, max_size=80)


def spread(counts):
    return max(counts) - min(counts)


@given(targets, st.integers(0, 9), st.integers(0, 9))
def test_classes_and_the_photos_of_a_class_are_shown_equally_often(targets, seed, epoch):
    """Give or take one, in an epoch of as many showings as there are photos, each with a key of its own."""
    keys = balanced(targets, seed, epoch)
    assert len(set(keys)) == len(keys) == len(targets)
    assert {key[0] for key in keys} == {epoch}
    shown = Counter(key[1] for key in keys)
    classes = Counter(targets[index] for index in shown.elements())
    assert spread([classes[label] for label in set(targets)]) <= 1
    for label in set(targets):
        assert spread([shown[index] for index, target in enumerate(targets) if target == label]) <= 1


@given(targets, st.integers(0, 9))
def test_a_showing_says_how_often_its_photo_was_shown_before(targets, epoch):
    """So that each showing is another view."""
    shown = Counter(key[1] for key in balanced(targets, 0, epoch))
    expected = {(epoch, index, before) for index, times in shown.items() for before in range(1, times)}
    assert set(balanced(targets, 0, epoch)) == expected | {(epoch, index) for index in shown}


def test_the_photos_of_a_class_take_turns_over_the_epochs():
    targets = [0] * 90 + [1] * 10
    shown = [{key[1] for key in balanced(targets, 0, epoch) if key[1] < 90} for epoch in range(9)]
    assert all(len(part) == 50 for part in shown)
    assert len(shown[0] | shown[1]) == 90
    assert set(Counter(index for part in shown for index in part).values()) == {5}


def test_sampling_depends_on_seed_and_epoch_alone():
    targets = [0] * 30 + [1] * 3 + [2] * 7
    assert balanced(targets, 0, 1) == balanced(targets, 0, 1)
    assert balanced(targets, 0, 1) != balanced(targets, 1, 1)
    assert permutation(9, "order", 0, 0) == permutation(9, "order", 0, 0) != permutation(9, "classes", 0, 0)


@given(st.integers(1, 30), st.integers(1, 10), st.integers(1, 3))
def test_groups_fill_each_epoch_and_only_its_last_one_is_smaller(batches, accumulate, epochs):
    groups = GradientAccumulation(batches, accumulate)
    sizes, pending = [], 0
    for batch in range(batches * epochs):
        pending += 1
        if groups.complete(batch + 1):
            assert {groups.size(batch - back) for back in range(pending)} == {pending}
            sizes.append(pending)
            pending = 0
            assert groups.updates(batch + 1) == len(sizes)
    full, rest = divmod(batches, accumulate)
    assert sizes == ([accumulate] * full + [rest] * (rest > 0)) * epochs
    assert groups.updates_per_epoch * epochs == len(sizes)


def test_without_accumulation_every_batch_is_an_update():
    groups = GradientAccumulation(5, 1)
    assert [groups.updates(batches) for batches in range(7)] == list(range(7))
    assert all(groups.complete(batches) and groups.size(batches) == 1 for batches in range(7))
