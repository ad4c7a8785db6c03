"""The file of tokens: what is wrong is told by entry and field, and nothing that stands there is ever shown."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import TokensInvalid
from service.identity.tokens import SCOPES, Token, digest, dumped, generate, parse, read

PATH = Path("tokens.json")
SECRET = "swordfish"
GOOD = {"name": "shop", "sha256": "ab" * 32, "scopes": ["classify"]}

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
limits = st.none() | st.floats(0.001, 1e6)
tokens = st.builds(
    Token,
    names,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.sets(st.sampled_from(SCOPES), min_size=1).map(lambda chosen: tuple(s for s in SCOPES if s in chosen)),
    st.lists(names, max_size=3, unique=True).map(tuple),
    limits,
    limits,
    st.none() | st.integers(1, 1000),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(st.lists(tokens, max_size=4, unique_by=(lambda token: token.name, lambda token: token.sha256)))
def test_what_is_written_is_read(written: list[Token]) -> None:
    assert parse(dumped(written), PATH) == tuple(written)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": f"{SECRET} {SECRET}"}, r"tokens\[0\]: 'name' should be"),
        ({"sha256": SECRET}, r"tokens\[0\] 'shop': 'sha256' should be 64 hex"),
        ({"token": SECRET}, r"tokens\[0\] 'shop': a field that is none of name, sha256"),
        ({"scopes": [SECRET]}, "'scopes' should be a list of some of classify"),
        ({"scopes": []}, "'scopes' is empty"),
        ({"models": []}, "'models' is empty"),
        ({"models": SECRET}, "'models' should be a list"),
        ({"requests_per_second": 0}, "'requests_per_second' should be a number above 0"),
        ({"images_per_second": SECRET}, "'images_per_second' should be a number above 0"),
        ({"images_per_second": float("nan")}, "'images_per_second' should be a number above 0"),
        ({"in_flight": True}, "'in_flight' should be a whole number from 1"),
        ({"expires": SECRET}, "'expires' should be a time"),
    ],
    ids=str,
)
def test_an_entry_that_is_wrong_is_named_and_not_shown(change: dict[str, Any], why: str) -> None:
    data = json.dumps({"schema": 1, "tokens": [{**GOOD, **change}]}).encode()
    with pytest.raises(TokensInvalid, match=why) as raised:
        parse(data, PATH)
    assert SECRET not in str(raised.value)
    assert SECRET not in str(raised.value.facts)


@pytest.mark.parametrize("data", [b"", b"[]", b"swordfish", b'{"schema": 2, "tokens": []}', b"\xff", b"[" * 99999])
def test_a_file_that_is_none_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(TokensInvalid, match="the file") as raised:
        parse(data, PATH)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("field", ["name", "sha256"])
def test_two_entries_may_not_be_mixed_up(field: str) -> None:
    entries = [GOOD, {"name": "other", "sha256": "cd" * 32, "scopes": ["models"], field: GOOD[field]}]
    with pytest.raises(TokensInvalid, match=rf"tokens\[1\]: its {field} is that of tokens\[0\]"):
        parse(json.dumps({"schema": 1, "tokens": entries}).encode(), PATH)


def test_a_link_is_followed_as_secrets_are_mounted_through_them(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(dumped([]))
    (tmp_path / "tokens.json").symlink_to("data")
    assert parse(read(tmp_path / "tokens.json"), PATH) == ()
    with pytest.raises(TokensInvalid, match=r"missing.json cannot be used: the file: No such file"):
        read(tmp_path / "missing.json")


def test_tokens_differ_and_a_time_without_a_zone_is_utc() -> None:
    assert len({generate() for _ in range(100)}) == 100
    assert len(digest(generate())) == 64
    (token,) = parse(json.dumps({"schema": 1, "tokens": [{**GOOD, "expires": "2030-01-31T12:00:00"}]}).encode(), PATH)
    assert token.expires == datetime(2030, 1, 31, 12, tzinfo=UTC)
