from hypothesis import given
from hypothesis import strategies as st

from training.learning.sampling import GradientAccumulation


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
