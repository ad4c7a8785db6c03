"""Tokens that somebody else issues (JWT, RFC 7519), checked with the issuer's public keys (JWKS, RFC 7517) from a file.

Nothing is fetched. The claims say what a token may do, as the fields of the file of tokens do.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt

from anther import files
from service.errors import KeysInvalid, TokensInvalid, Unauthenticated
from service.identity.tokens import LIMITS, SCOPES, Token, limits_of

NAME = "jwt"  # what metrics show of each such caller: subjects are the issuer's, and as many as it likes
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_REQUIRED = ["exp", "iss", "aud", "sub"]
_LEEWAY_S = 30.0  # between the issuer's clock and this one
_LARGEST_FILE = 2**20  # bytes
_LONGEST_SUBJECT = 256
_KEPT = 4096  # tokens that need no second look while they are in use


class JwtIssuer:
    """`token_of` is for one thread at a time. Raises `KeysInvalid` when it is made, too."""

    what = "jwt_keys"

    def __init__(self, path: Path, issuer: str, audience: str) -> None:
        self._path, self._issuer, self._audience = path, issuer, audience
        self._data = _read(path)
        self._keys = _keys(path, self._data)
        self._checked: dict[str, tuple[str, Token]] = {}

    def refresh(self) -> bool:
        data = _read(self._path)
        if data == self._data:
            return False
        self._keys = _keys(self._path, data)
        self._data, self._checked = data, {}
        return True

    def token_of(self, sent: str, digest: str) -> tuple[str, Token]:
        """The subject, and what it may do. Raises `Unauthenticated`."""
        checked = self._checked
        found = checked.get(digest)
        if found is None:
            claims = self._claims(sent)
            found = _subject(claims["sub"]), self._token(claims, digest)
            if len(checked) >= _KEPT:
                checked.clear()
            checked[digest] = found
        return found

    def _claims(self, sent: str) -> dict[str, Any]:
        try:
            key = self._keys.get(jwt.get_unverified_header(sent).get("kid") or "")
            if key is None:
                raise Unauthenticated("the one that was sent is signed with a key that is not known here")
            return jwt.decode(
                sent, key, algorithms=[key.algorithm_name], audience=self._audience, issuer=self._issuer,
                leeway=_LEEWAY_S, options={"require": _REQUIRED},
            )  # fmt: skip
        except jwt.ExpiredSignatureError as exc:
            raise Unauthenticated("the one that was sent has expired") from exc
        except (jwt.PyJWTError, ValueError, RecursionError) as exc:
            raise Unauthenticated("the one that was sent is not of the issuer that is believed here") from exc

    def _token(self, claims: dict[str, Any], digest: str) -> Token:
        granted = claims.get("scope", claims.get("scp", ""))
        words = granted.split() if isinstance(granted, str) else granted if isinstance(granted, list) else []
        fields = {name: claims[f"anther_{name}"] for name in LIMITS if f"anther_{name}" in claims}
        try:
            limits = limits_of(fields, self._path)
            expires = datetime.fromtimestamp(claims["exp"] + _LEEWAY_S, UTC)
        except (TokensInvalid, OverflowError, ValueError, TypeError) as exc:
            raise Unauthenticated("the one that was sent has claims that make no sense") from exc
        return Token(NAME, digest, tuple(scope for scope in SCOPES if scope in words), **limits, expires=expires)


def _subject(found: Any) -> str:
    """Raises `Unauthenticated`."""
    if not isinstance(found, str) or not 0 < len(found) <= _LONGEST_SUBJECT or not found.isprintable():
        raise Unauthenticated("the one that was sent has claims that make no sense")
    return found


def _read(path: Path) -> bytes:
    try:
        return files.read_regular(path.resolve(), _LARGEST_FILE)
    except (OSError, ValueError) as exc:
        raise KeysInvalid(path, getattr(exc, "strerror", None) or str(exc)) from exc


def _keys(path: Path, data: bytes) -> dict[str, jwt.PyJWK]:
    """By `kid`. A single key also answers for tokens that name none."""
    try:
        found = jwt.PyJWKSet.from_dict(json.loads(data)).keys
    except (jwt.PyJWTError, ValueError, RecursionError, AttributeError, TypeError) as exc:  # its text may quote a key
        raise KeysInvalid(path, "expected a JSON Web Key Set with public keys") from exc
    if any(key.algorithm_name not in _ALGORITHMS for key in found):
        raise KeysInvalid(path, f"expected keys for {', '.join(_ALGORITHMS)}")
    keys = {key.key_id or "": key for key in found}
    if len(keys) != len(found):
        raise KeysInvalid(path, "each of several keys needs a 'kid' of its own")
    return {"": found[0], **keys} if len(found) == 1 else keys
