"""JSON to dataclasses: what fits is read, what does not is named with its field, value and what was expected."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import schema
from bundle.errors import ManifestInvalid


@dataclass(frozen=True)
class Inner:
    count: int
    rate: float


@dataclass(frozen=True)
class Outer:
    title: str
    flag: bool
    inner: Inner
    pair: tuple[float, float]
    many: tuple[Inner, ...]
    table: dict[str, dict[str, int]]
    kind: Literal["a", "b"]
    loose: dict[str, str | int | float | bool | None]
    maybe: str | None

    def __post_init__(self) -> None:
        if self.title == "forbidden":
            raise ValueError("another title")


def good() -> dict[str, Any]:
    return {
        "title": "Blüten",
        "flag": True,
        "inner": {"count": 3, "rate": 0.5},
        "pair": [1, 2.5],
        "many": [{"count": 1, "rate": 1}, {"count": 2, "rate": 2.0}],
        "table": {"x": {"y": 1}},
        "kind": "b",
        "loose": {"text": "t", "whole": 1, "real": 1.5, "truth": False, "nothing": None},
        "maybe": None,
    }


def test_reads_every_kind_of_field() -> None:
    found = schema.read(Outer, good())
    assert found.inner == Inner(3, 0.5)
    assert found.many == (Inner(1, 1.0), Inner(2, 2.0))
    assert found.loose == {"text": "t", "whole": 1, "real": 1.5, "truth": False, "nothing": None}
    assert [type(value) for value in found.loose.values()] == [str, int, float, bool, type(None)]


def test_whole_numbers_stand_for_real_ones_and_become_them() -> None:
    assert schema.read(Outer, good()).pair == (1.0, 2.5)
    assert all(type(value) is float for value in schema.read(Outer, good()).pair)


WRONG = [  # path to the field, value, field in the message, expectation in the message
    (("title",), 3, "title", "a text"),
    (("title",), None, "title", "a text"),
    (("title",), "\ud800", "title", "a text of whole characters"),
    (("flag",), 1, "flag", "true or false"),
    (("flag",), "true", "flag", "true or false"),
    (("inner",), [1, 2], "inner", "an object"),
    (("inner", "count"), 3.0, "inner.count", "a whole number"),
    (("inner", "count"), True, "inner.count", "a whole number"),
    (("inner", "rate"), "0.5", "inner.rate", "a number"),
    (("inner", "rate"), True, "inner.rate", "a number"),
    (("inner", "rate"), 10**400, "inner.rate", "a number"),
    (("inner", "rate"), float("inf"), "inner.rate", "a finite number"),
    (("inner", "rate"), float("nan"), "inner.rate", "a finite number"),
    (("inner", "unknown"), 1, "inner.unknown", "one of the fields count, rate"),
    (("pair",), [1.0], "pair", "a list of 2 values"),
    (("pair",), {"0": 1.0}, "pair", "a list"),
    (("pair",), [1.0, "2"], "pair[1]", "a number"),
    (("many",), [{"count": 1, "rate": 1}, {"count": 1}], "many[1].rate", "a value: the field is missing"),
    (("table", "x"), 1, "table.x", "an object"),
    (("table", "x", "y"), 1.5, "table.x.y", "a whole number"),
    (("table", "\udfff"), {}, "table", "a text of whole characters"),
    (("kind",), "c", "kind", "'a' or 'b'"),
    (("kind",), ["a"], "kind", "'a' or 'b'"),
    (("loose", "text"), [], "loose.text", "a text or a whole number or a number or true or false or null"),
    (("loose", "real"), float("inf"), "loose.real", "a text or a whole number"),
    (("maybe",), 1, "maybe", "a text or null"),
    (("extra",), 1, "extra", "one of the fields title, flag"),
]


@pytest.mark.parametrize(
    ("path", "value", "field", "expected"), WRONG, ids=lambda item: str(item)[:20].encode("ascii", "replace").decode()
)
def test_a_wrong_value_is_named_with_its_field_and_what_was_expected(
    path: tuple[str, ...], value: object, field: str, expected: str
) -> None:
    record = good()
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ManifestInvalid) as refusal:
        schema.read(Outer, record)
    assert f"manifest field '{field}' is " in str(refusal.value)
    assert refusal.value.facts["field"] == field
    assert refusal.value.facts["expected"].startswith(expected)


@pytest.mark.parametrize("field", [item.name for item in dataclasses.fields(Outer)])
def test_a_missing_field_is_named(field: str) -> None:
    record = good()
    del record[field]
    with pytest.raises(ManifestInvalid, match=rf"^manifest field '{field}' is None; expected a value: the field is"):
        schema.read(Outer, record)


def test_a_field_that_was_added_later_may_be_missing() -> None:
    @dataclasses.dataclass
    class Grown:
        old: int
        new: int = dataclasses.field(default=7, metadata=schema.ADDED)

    assert schema.read(Grown, {"old": 1}) == Grown(1, 7)
    assert schema.read(Grown, {"old": 1, "new": 2}) == Grown(1, 2)


def test_what_a_record_itself_refuses_is_named_with_the_record() -> None:
    with pytest.raises(ManifestInvalid, match=r"^manifest field 'manifest.json' is .*; expected another title$"):
        schema.read(Outer, {**good(), "title": "forbidden"})


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_a_document_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(ManifestInvalid, match="expected an object"):
        schema.read(Outer, value)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ManifestInvalid) as refusal:
        schema.read(Outer, {**good(), "flag": "x" * 10_000})
    assert len(str(refusal.value)) < 200


def test_the_record_behind_a_choice_is_named_with_its_own_field() -> None:
    @dataclass(frozen=True)
    class Choice:
        inner: Inner | None

    assert schema.read(Choice, {"inner": None}, "").inner is None
    with pytest.raises(ManifestInvalid, match=r"^manifest field 'inner\.rate' is 'x'; expected a number"):
        schema.read(Choice, {"inner": {"count": 1, "rate": "x"}})
    with pytest.raises(ManifestInvalid, match=r"'inner' is 3; expected an object with the fields count, rate or null"):
        schema.read(Choice, {"inner": 3})


def test_a_key_given_twice_among_very_many_is_found_at_once() -> None:
    """A search for each key would take hours for what a manifest of the largest size can hold."""
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    with pytest.raises(ManifestInvalid, match="the key 'twice' stands twice"):
        schema.parse(f'{{{keys}, "twice": 0, "twice": 0}}')


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_nesting_of_any_depth_is_refused_and_never_ends_the_reader(depth: int) -> None:
    """Some depths can just be parsed, and what is done with them afterwards must not overflow either."""
    nested = "[" * depth + "]" * depth
    with pytest.raises(ManifestInvalid):
        schema.read(Outer, {**good(), "title": schema.parse(nested)})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("{} {}", "Extra data"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": Infinity}', "Infinity is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice"),
        ('{"a": {"b": 1, "b": 1}}', "the key 'b' stands twice"),
        ("\ufeff{}", "BOM"),
        ("[" * 200_000, "recursion"),
        ("1" * 5000, "4300 digits"),
        ("{'a': 1}", "Expecting property name"),
    ],
    ids=lambda item: item[:20],
)
def test_text_that_is_not_json_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=re.escape(reason)) as refusal:
        schema.parse(text)
    assert "expected a JSON document" in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_any_json_is_read_or_refused_and_nothing_else(value: Any) -> None:
    with pytest.raises(ManifestInvalid):
        schema.read(Outer, value)


@given(value=JSON, field=st.sampled_from([item.name for item in dataclasses.fields(Outer)]))
def test_any_json_in_any_field_is_read_or_refused_and_nothing_else(value: Any, field: str) -> None:
    try:
        found = schema.read(Outer, {**good(), field: value})
    except ManifestInvalid as refusal:
        named = refusal.facts["field"]
    else:
        named = "manifest.json" if isinstance(found, Outer) else ""
    assert named.startswith((field, "manifest.json"))
