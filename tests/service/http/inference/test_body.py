"""Bodies are taken apart where their header says, and whatever is no JSON of bounded size is refused."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidArgument
from service.http.inference.body import Body, parsed, split, unpacked


def refusal(call, *arguments) -> str:
    with pytest.raises(InvalidArgument) as raised:
        call(*arguments)
    return str(raised.value)


@given(st.dictionaries(st.text(), st.integers()), st.binary())
def test_binary_data_follows_the_json(header: dict[str, int], binary: bytes) -> None:
    text = json.dumps(header).encode()
    assert split(text + binary, str(len(text))) == Body(header, binary)
    assert split(text, None) == Body(header)


@given(st.binary(min_size=1))
def test_a_length_of_nothing_leaves_everything_to_the_binary_data(data: bytes) -> None:
    assert split(data, "0") == Body(None, data)


@pytest.mark.parametrize("length", ["11", "-1", "1.0", "x", "", "١", "9" * 18, "9" * 5000, "0x1", " 1"])
def test_a_length_that_cannot_be_is_refused(length: str) -> None:
    assert "expected a number up to the body's 10 bytes" in refusal(split, b"x" * 10, length)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a JSON object"),
        (b"{", "a JSON object"),
        (b"{} {}", "a JSON object"),
        (b"\xff\xfe{\x00}\x00", "a JSON object"),
        (b'{"a": NaN}', "NaN is none of JSON's numbers"),
        (b'{"a": -Infinity}', "-Infinity is none of JSON's numbers"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a JSON object"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 5000, "nested too deeply"),
        (b"[]", "'body' is 'a list'; expected an object"),
        (b"null", "'body' is 'null'"),
        (b'{"a":[' + b"0," * 500_001 + b"0]}", "more values'; expected at most 500,000; send large tensors as binary"),
        (b'{"a":[' + b"[]," * 250_001 + b"0]}", "more values"),
        (b'{"a":' + b"1" * 4_000_001 + b"}", "more digits'; expected at most 4,000,000"),
        (b'{"a":0' + b',"b":0' * 10_001 + b"}", "more members'; expected at most 10,000"),
    ],
)
def test_what_is_no_json_object_of_bounded_size_is_refused(data: bytes, message: str) -> None:
    assert message in refusal(parsed, data)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    try:
        found = parsed(data)
    except InvalidArgument:
        return
    assert isinstance(found, dict)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked_within_the_limit(encoding: str, pack) -> None:
    data = bytes(100_000)
    assert unpacked(pack(data), encoding, len(data)) == data
    assert len(unpacked(pack(data), encoding, 1000)) == 1001
    assert unpacked(pack(b""), encoding, 1000) == b""
    assert "end too early" in refusal(unpacked, pack(data)[:-1], encoding, len(data))
    assert "go on behind" in refusal(unpacked, pack(data) + b"x", encoding, len(data))
    assert f"{encoding} data" in refusal(unpacked, b"no such thing", encoding, 1000)
    assert "end too early" in refusal(unpacked, b"", encoding, 1000)
