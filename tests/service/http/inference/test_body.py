"""Bodies are taken apart where their header says, and whatever is no JSON of bounded size is refused."""

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidArgument, RequestTooLarge
from service.http.inference.body import Body, parsed, split, unpacked
from service.http.inference.requests import Parameters, Question


def refusal(call, *arguments) -> str:
    with pytest.raises(InvalidArgument) as raised:
        call(*arguments)
    return str(raised.value)


@given(st.binary(), st.binary())
def test_binary_data_follows_the_json(text: bytes, binary: bytes) -> None:
    assert split(text, None) == Body(text)
    expected = Body(text, binary) if text else Body(None, binary)
    assert split(text + binary, str(len(text))) == expected


@pytest.mark.parametrize("length", ["11", "-1", "1.0", "x", "", "١", "9" * 18, "9" * 5000, "0x1", " 1"])
def test_a_length_that_cannot_be_is_refused(length: str) -> None:
    assert "expected a number up to the body's 10 bytes" in refusal(split, b"x" * 10, length)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"{} {}", "trailing characters"),
        (b"\xff\xfe{\x00}\x00", "invalid character"),
        (b"\xef\xbb\xbf{}", "invalid character"),
        (b'{"a": "\xff"}', "Invalid UTF-8"),
        (b'{"a": "\\ud800 and more"}', "surrogate"),
        (b'{"a": "\\udc00"}', "surrogate"),
        (b'{"a": NaN}', "invalid character"),
        (b'{"a": -Infinity}', "invalid character"),
        (b'{"a": 1e400}', "Number out of range"),
        (b'{"a": 9223372036854775808}', "Expected `int` <= 9223372036854775807"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Integer value out of range"),
        (b'{"a": {}}', "Expected `bool | int | float | str | null`, got `object`"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"a":' * 5000, "Expected `bool | int | float | str | null`, got `object`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"a":[' + b"0," * 500_001 + b"0]}", "more values'; expected at most 500,000; send large tensors as binary"),
        (b'{"a":0' + b',"b":0' * 10_001 + b"}", "more members'; expected at most 10,000"),
    ],
)
def test_what_is_no_json_of_that_form_is_refused(text: bytes, message: str) -> None:
    assert message in refusal(parsed, text, Parameters)


def test_nesting_where_nothing_is_expected_is_refused_too() -> None:
    assert "recursion" in refusal(parsed, b'{"inputs": [], "more": ' + b"[" * 100_000, Question)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_of_that_form_or_refused(text: bytes) -> None:
    try:
        found = parsed(text, Parameters)
    except InvalidArgument:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked_within_the_limit(encoding: str, pack) -> None:
    data = random.Random(0).randbytes(100_000)
    assert unpacked(pack(data), encoding, len(data)) == data
    assert unpacked(pack(b""), encoding, 1000) == b""
    with pytest.raises(RequestTooLarge):
        unpacked(pack(data), encoding, len(data) - 1)
    assert "end too early" in refusal(unpacked, pack(data)[:-1], encoding, len(data))
    assert "go on behind" in refusal(unpacked, pack(data) + b"x", encoding, len(data))
    assert f"{encoding} data" in refusal(unpacked, b"no such thing", encoding, 1000)
    assert "end too early" in refusal(unpacked, b"", encoding, 1000)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_little_that_unpacks_to_much_is_refused(pack) -> None:
    """Its sender would make the server work for next to nothing."""
    assert unpacked(pack(bytes(60_000)), "gzip", 10**9) == bytes(60_000)
    assert "packs to no less than 1/32" in refusal(unpacked, pack(bytes(10_000_000)), "gzip", 10**9)
