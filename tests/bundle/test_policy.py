"""The serving policy's transitions: each a new policy that says exactly what the operator asked for."""

import dataclasses
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import NoEarlierVersion
from bundle.policy import ServingPolicy, Share

LATEST = ServingPolicy()
PINNED = ServingPolicy(versions="pinned", stable=3, previous=(1, 2))
ALL = dataclasses.replace(PINNED, versions="all")


def test_by_default_the_newest_good_version_answers_everything() -> None:
    assert dataclasses.astuple(LATEST) == (1, "latest", 0, None, None, True, ())
    assert LATEST.named() == set()


def test_pinning_serves_that_version_and_remembers_the_one_before() -> None:
    assert LATEST.pinned_to(2, current=5) == ServingPolicy(versions="pinned", stable=2, previous=(5,))
    assert PINNED.pinned_to(9, current=3) == ServingPolicy(versions="pinned", stable=9, previous=(1, 2, 3))
    assert ALL.pinned_to(9, current=3).versions == "pinned"


@pytest.mark.parametrize("current", [0, 2])
def test_nothing_is_remembered_where_nothing_else_answered(current: int) -> None:
    """Nothing in service, or that version already."""
    assert LATEST.pinned_to(2, current).previous == ()


def test_promoting_pins_and_leaves_every_version_addressable_that_was() -> None:
    assert LATEST.promoted(4, current=3) == ServingPolicy(versions="pinned", stable=4, previous=(3,))
    assert ALL.promoted(4, current=3) == dataclasses.replace(ALL, stable=4, previous=(1, 2, 3))


@pytest.mark.parametrize("change", [ServingPolicy.promoted, ServingPolicy.pinned_to])
def test_the_promoted_version_is_no_canary_or_shadow_any_more(change: Callable[..., ServingPolicy]) -> None:
    policy = LATEST.with_canary(4, 0.1).with_shadow(4, 1.0)
    assert (change(policy, 4, 3).canary, change(policy, 4, 3).shadow) == (None, None)
    other = LATEST.with_canary(5, 0.1).with_shadow(6, 1.0)
    assert (change(other, 4, 3).canary, change(other, 4, 3).shadow) == (Share(5, 0.1), Share(6, 1.0))


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    policy = LATEST
    for version in range(2, 40):
        policy = policy.promoted(version, current=version - 1)
    assert policy.previous == tuple(range(23, 39))


def test_rolling_back_returns_to_the_version_before() -> None:
    back = PINNED.rolled_back(current=3, versions=[1, 2, 3])
    assert back == ServingPolicy(versions="pinned", stable=2, previous=(1,))
    assert back.rolled_back(current=2, versions=[1, 2, 3]) == ServingPolicy(versions="pinned", stable=1)
    assert ALL.rolled_back(current=3, versions=[1, 2, 3]).versions == "all"


def test_rolling_back_passes_over_versions_that_are_gone() -> None:
    assert PINNED.rolled_back(current=3, versions=[1, 3]) == ServingPolicy(versions="pinned", stable=1)


def test_rolling_back_without_a_memory_takes_the_newest_below_the_current() -> None:
    """Also where it is the newest that is followed: the operator wants it gone whatever its number."""
    assert LATEST.rolled_back(current=7, versions=[9, 4, 2, 7]) == ServingPolicy(versions="pinned", stable=4)
    assert PINNED.rolled_back(current=7, versions=[5, 7]) == ServingPolicy(versions="pinned", stable=5)


def test_what_may_follow_in_a_rollback_is_what_was_stable_and_then_what_is_older() -> None:
    policy = dataclasses.replace(PINNED, stable=6, previous=(1, 6, 4, 9))
    assert policy.earlier(6, [1, 2, 3, 4, 5, 6, 7]) == [4, 1, 5, 3, 2]
    assert LATEST.earlier(3, [1, 2, 3]) == [2, 1]
    assert LATEST.earlier(1, [1, 2]) == []


def test_rolling_back_ends_the_canary_of_what_is_returned_to() -> None:
    policy = PINNED.with_canary(2, 0.5).with_shadow(4, 0.5)
    back = policy.rolled_back(current=3, versions=[1, 2, 3, 4])
    assert (back.canary, back.shadow) == (None, Share(4, 0.5))


@pytest.mark.parametrize("current", [0, 1])
def test_there_must_be_something_to_return_to(current: int) -> None:
    with pytest.raises(NoEarlierVersion, match=f"no version before {current} to roll back to; available: 1, 2"):
        LATEST.rolled_back(current, versions=[1, 2])


def test_following_the_latest_lets_go_of_the_pin_alone() -> None:
    policy = PINNED.with_canary(5, 0.2)
    assert policy.following_latest() == dataclasses.replace(policy, versions="latest", stable=0)


def test_canary_and_shadow_come_and_go_without_touching_the_rest() -> None:
    with_both = PINNED.with_canary(5, 0.25).with_shadow(6, 1.0)
    assert with_both == dataclasses.replace(PINNED, canary=Share(5, 0.25), shadow=Share(6, 1.0))
    assert with_both.named() == {3, 5, 6}
    assert with_both.without_canary() == PINNED.with_shadow(6, 1.0)
    assert with_both.without_canary().without_shadow() == PINNED


def test_unloading_keeps_everything_for_reloading() -> None:
    policy = PINNED.with_canary(5, 0.25)
    assert policy.unloaded() == dataclasses.replace(policy, loaded=False)
    assert policy.unloaded().reloaded() == policy


WRONG: dict[str, Callable[[], object]] = {
    "a share over 0 and at most 1, got 0": lambda: Share(1, 0),
    "a share over 0 and at most 1, got 1.01": lambda: LATEST.with_canary(1, 1.01),
    "a share over 0 and at most 1, got -0.1": lambda: LATEST.with_shadow(1, -0.1),
    "a share over 0 and at most 1, got nan": lambda: Share(1, float("nan")),
    "a version of 1 or more, got 0": lambda: Share(0, 0.5),
    "a stable version of 1 or more, as versions are pinned, got 0": lambda: ServingPolicy(versions="pinned"),
    "a stable version of 0 or more, got -1": lambda: ServingPolicy(stable=-1),
    "at most 16 previous versions of 1 or more, got [0]": lambda: ServingPolicy(previous=(0,)),
    "at most 16 previous versions of 1 or more, got [1, 1": lambda: ServingPolicy(previous=(1,) * 17),
}


@pytest.mark.parametrize("expected", WRONG)
def test_what_cannot_be_is_refused_with_what_was_expected(expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        WRONG[expected]()


VERSIONS = st.integers(1, 6)
CHANGES = st.one_of(
    st.tuples(st.just("promoted"), VERSIONS),
    st.tuples(st.just("pinned_to"), VERSIONS),
    st.tuples(st.just("with_canary"), VERSIONS),
    st.tuples(st.just("following_latest"), VERSIONS),
    st.tuples(st.just("rolled_back"), VERSIONS),
)


@given(st.lists(CHANGES, max_size=40), st.sets(VERSIONS, min_size=1))
def test_whatever_is_done_in_whatever_order_the_policy_can_be_carried_out(
    changes: list[tuple[str, int]], existing: set[int]
) -> None:
    """Only versions that exist are returned to, and what is pinned is always named."""
    policy = LATEST
    for change, version in changes:
        current = policy.stable or max(existing)
        if change == "rolled_back":
            try:
                policy = policy.rolled_back(current, sorted(existing))
            except NoEarlierVersion:
                assert min(existing) >= current
            else:
                assert policy.stable in existing - {current}
                assert policy.canary is None or policy.canary.version != policy.stable
        else:
            arguments = {"with_canary": (version, 0.5), "following_latest": ()}.get(change, (version, current))
            policy = getattr(policy, change)(*arguments)
        assert (policy.versions == "pinned") == (policy.stable > 0)
        assert len(policy.previous) <= 16
