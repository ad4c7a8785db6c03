"""Who answers a request: number before label before share, and a share that falls the same way everywhere."""

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.errors import VersionNotFound
from bundle.repository import Bundle, open_bundle
from service.errors import CanaryNotFound, InvalidArgument
from service.versions.loader import LiveModel
from service.versions.routes import Part, Route, falls_into

IDS = [f"request-{number}" for number in range(1000)]


class NoEngine:
    provider, precision, batch_sizes = "none", "fp32", (1,)

    def run(self, parts, evidence=False):
        raise AssertionError("nobody asks")

    def close(self) -> None:
        raise AssertionError("nobody closes it")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_bundle) -> Bundle:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "it"))


@pytest.fixture(scope="module")
def version(bundle):
    """`version(3)`: a live model of that number."""
    return lambda number: LiveModel(dataclasses.replace(bundle, version=number), NoEngine(), 0.0, 0.0)


def test_the_stable_version_answers_where_nothing_else_is_asked(version) -> None:
    stable = version(1)
    route = Route(stable)
    assert route.choose() is route.choose(label="stable") is route.choose(1) is route.choose(0, "", "any id") is stable
    assert route.shadowing("any id") is None


def test_a_number_beats_a_label(version) -> None:
    stable, canary, other = version(1), version(2), version(3)
    route = Route(stable, Part(canary, 0.5), others=(other,))
    assert route.choose(3, "canary") is other
    assert route.choose(1, "canary") is stable
    assert route.choose(2, "stable") is canary


def test_a_label_beats_the_share(version) -> None:
    route = Route(version(1), Part(version(2), 0.5))
    assert {route.choose(label="canary", request_id=name).version for name in IDS} == {2}
    assert {route.choose(label="stable", request_id=name).version for name in IDS} == {1}


@pytest.mark.parametrize("label", ["Canary", "shadow", "latest", "x" * 1000])
def test_an_unknown_label_is_refused_with_those_there_are(version, label: str) -> None:
    with pytest.raises(InvalidArgument, match="'stable', 'canary', or nothing"):
        Route(version(1)).choose(label=label)


def test_a_canary_that_is_not_there_is_not_replaced_by_another_version(version) -> None:
    with pytest.raises(CanaryNotFound, match="no canary; its stable version is 1") as refusal:
        Route(version(1)).choose(label="canary")
    assert refusal.value.facts == {"model": "flowers", "stable": "1"}


def test_a_version_that_does_not_answer_is_refused_with_those_that_do(version) -> None:
    route = Route(version(4), Part(version(7), 0.1), Part(version(9), 1.0), (version(2),))
    with pytest.raises(VersionNotFound) as refusal:
        route.choose(9)
    assert refusal.value.facts["available"] == "2,4,7"


def test_a_shadow_is_held_and_answers_nobody(version) -> None:
    route = Route(version(1), shadow=Part(version(2), 1.0))
    assert list(route.answering) == [1]
    assert [model.version for model in route.models()] == [1, 2]


def test_a_version_with_several_parts_is_held_once(version) -> None:
    second = version(2)
    route = Route(version(1), Part(second, 0.1), others=(second,))
    assert [model.version for model in route.models()] == list(route.answering) == [1, 2]


def test_a_route_says_in_words_what_it_is(version) -> None:
    assert str(Route(version(1))) == "stable 1"
    whole = Route(version(3), Part(version(4), 0.1), Part(version(5), 1.0), (version(1),))
    expected = "stable 3; canary 4 gets 0.1 of the requests; shadow 5 gets 1 of the requests; by number 1, 4"
    assert str(whole) == expected


# Shares


def test_the_canary_gets_exactly_the_ids_that_the_documented_hash_gives_it(version) -> None:
    """Written out as another language would write it."""
    route = Route(version(1), Part(version(2), 0.1))
    expected = {
        name for name in IDS if int(hashlib.sha256(b"canary:" + name.encode()).hexdigest()[:16], 16) < 0.1 * 2**64
    }
    assert {name for name in IDS if route.choose(request_id=name).version == 2} == expected
    assert len(expected) == 96


def test_the_shadow_gets_other_ids_than_the_canary(version) -> None:
    route = Route(version(1), Part(version(2), 0.1), Part(version(3), 0.1))
    canary = {name for name in IDS if route.choose(request_id=name).version == 2}
    shadow = {name for name in IDS if route.shadowing(name) is not None}
    assert len(shadow) == 118
    assert len(canary & shadow) == 8


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_an_id_stays_in_a_share_that_grows(name: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert not name or falls_into(small, "canary", name) <= falls_into(large, "canary", name)


@given(st.text())
def test_a_share_of_one_takes_every_id_and_one_of_nothing_takes_none(name: str) -> None:
    assert falls_into(1.0, "canary", name)
    assert not falls_into(0.0, "canary", name)


def test_requests_without_an_id_are_shared_out_at_random(version) -> None:
    """All of 10,000 falling the same way has a probability of 2 to the power of −9,999."""
    route = Route(version(1), Part(version(2), 0.5))
    assert {route.choose().version for _ in range(10_000)} == {1, 2}
