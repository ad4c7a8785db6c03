"""Tokens, and the file that says what each may do. It holds their SHA-256 digests; no token stands in it.

A token is 256 random bits, so that one round of SHA-256 keeps it secret: nobody can try them all.
"""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from anther import files
from service.errors import TokensInvalid

Scope = Literal["classify", "explain", "models", "control", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

LARGEST_FILE = 16 * 2**20  # bytes: more than 50,000 tokens
_SCHEMA = 1
_PREFIX = "anther_"  # lets people, and programs that look for secrets, know one where they see it
_RANDOM_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
OF_NAME = "1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', the first a letter or a digit"
_DIGEST = re.compile(r"[0-9a-f]{64}")
LIMITS = ("models", "requests_per_second", "images_per_second", "in_flight")
_FIELDS = ("name", "sha256", "scopes", *LIMITS, "expires")


@dataclass(frozen=True, slots=True)
class Token:
    """What one token may do. No `models` means all of them; a limit that is None does not bind."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] = ()
    requests_per_second: float | None = None
    images_per_second: float | None = None
    in_flight: int | None = None
    expires: datetime | None = None


def generate() -> str:
    """A new token: to be shown once, and kept nowhere."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def read(path: Path) -> bytes:
    """The file's bytes; of a link's target where it is one, as secrets in Kubernetes are. Raises `TokensInvalid`."""
    try:
        return files.read_regular(path.resolve(), LARGEST_FILE)
    except (OSError, ValueError) as exc:
        raise TokensInvalid(path, "the file", getattr(exc, "strerror", None) or str(exc)) from exc


def parse(data: bytes, path: Path) -> tuple[Token, ...]:
    """Raises `TokensInvalid`, which names the entry and the field; what a field holds stands in no error."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise TokensInvalid(path, "the file", "no JSON") from exc
    if not isinstance(whole, dict) or whole.get("schema") != _SCHEMA or not isinstance(whole.get("tokens"), list):
        raise TokensInvalid(path, "the file", f"expected {{'schema': {_SCHEMA}, 'tokens': [...]}}")
    tokens = tuple(_Entry(path, number, entry).token() for number, entry in enumerate(whole["tokens"]))
    for field in ("name", "sha256"):
        values = [getattr(token, field) for token in tokens]
        for number, value in enumerate(values):
            if value in values[:number]:
                raise TokensInvalid(path, f"tokens[{number}]", f"its {field} is that of tokens[{values.index(value)}]")
    return tokens


def limits_of(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """The `LIMITS` of a token that stands in no file. Raises `TokensInvalid`."""
    return _Entry(path, 0, fields).limits()


def dumped(tokens: Sequence[Token]) -> bytes:
    """The file that `parse` reads; what is not set is left out."""
    entries = [{field: _plain(getattr(token, field)) for field in _FIELDS} for token in tokens]
    shown = [{field: value for field, value in entry.items() if value not in (None, ())} for entry in entries]
    return f"{json.dumps({'schema': _SCHEMA, 'tokens': shown}, indent=2)}\n".encode()


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


class _Entry:
    """One element of the file's list, field by field."""

    def __init__(self, path: Path, number: int, found: Any) -> None:
        self._path, self._found = path, found
        self._where = f"tokens[{number}]"
        if not isinstance(found, dict):
            raise self._wrong("expected an object")
        if isinstance(name := found.get("name"), str) and NAME.fullmatch(name):
            self._where += f" '{name}'"
        for field in found:
            if field not in _FIELDS:
                raise self._wrong(f"a field that is none of {', '.join(_FIELDS)}")

    def token(self) -> Token:
        """Raises `TokensInvalid`."""
        return Token(
            self._text("name", NAME, OF_NAME),
            self._text("sha256", _DIGEST, "64 hexadecimal digits in lower case"),
            self._scopes(),
            **self.limits(),
            expires=self._time("expires"),
        )

    def limits(self) -> dict[str, Any]:
        """Raises `TokensInvalid`."""
        return {
            "models": self._names("models"),
            "requests_per_second": self._rate("requests_per_second"),
            "images_per_second": self._rate("images_per_second"),
            "in_flight": self._count("in_flight"),
        }

    def _wrong(self, why: str) -> TokensInvalid:
        return TokensInvalid(self._path, self._where, why)

    def _text(self, field: str, form: re.Pattern[str], expected: str) -> str:
        value = self._found.get(field)
        if not isinstance(value, str) or not form.fullmatch(value):
            raise self._wrong(f"'{field}' should be {expected}")
        return value

    def _scopes(self) -> tuple[Scope, ...]:
        value = self._names("scopes")
        scopes = tuple(scope for scope in SCOPES if scope in value)
        if not scopes or len(scopes) != len(set(value)):
            raise self._wrong(f"'scopes' should be a list of some of {', '.join(SCOPES)}")
        return scopes

    def _names(self, field: str) -> tuple[str, ...]:
        value = self._found.get(field, [])
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self._wrong(f"'{field}' should be a list of names")
        if field in self._found and not value:  # nobody knows whether that means all or none
            raise self._wrong(f"'{field}' is empty; leave it out, or name some")
        return tuple(value)

    def _rate(self, field: str) -> float | None:
        value = self._found.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
            raise self._wrong(f"'{field}' should be a number above 0")
        return float(value)

    def _count(self, field: str) -> int | None:
        value = self._found.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(f"'{field}' should be a whole number from 1")
        return value

    def _time(self, field: str) -> datetime | None:
        value = self._found.get(field)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
        except (TypeError, ValueError) as exc:
            raise self._wrong(f"'{field}' should be a time such as 2030-01-31T12:00:00+00:00") from exc
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
