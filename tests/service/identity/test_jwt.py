"""Tokens of an issuer: signature, issuer, audience and time are checked; subjects are callers bound by their claims."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from service.core.call import Caller
from service.errors import KeysInvalid, PermissionDenied, QuotaExceeded, Unauthenticated
from service.identity.access import Access
from service.identity.jwt import JwtIssuer
from service.identity.tokens import Token, digest

ISSUER, AUDIENCE, STRANGER = "https://issuer.example", "anther", Caller("192.0.2.1")
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def key_set(*keys: tuple[str, Any]) -> bytes:
    def described(kid: str, key: Any) -> dict[str, Any]:
        kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid}

    return json.dumps({"keys": [described(*each) for each in keys]}).encode()


def signed(key: Any = KEY, kid: str = "one", algorithm: str = "ES256", **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 600, "scope": "classify other"}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm, {"kid": kid})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(("one", KEY), ("two", RSA)))
    return path


@pytest.fixture
def issuer(path: Path) -> JwtIssuer:
    return JwtIssuer(path, ISSUER, AUDIENCE)


@pytest.fixture
def access(issuer: JwtIssuer) -> Access:
    return Access([Token("shop", digest("t-shop"), ("classify",))], issuer=issuer)


def caller_of(access: Access, sent: str) -> Caller:
    return access.identify(f"Bearer {sent}", STRANGER)


def test_a_subject_is_a_caller_and_metrics_do_not_show_it(access: Access) -> None:
    for sent in (signed(), signed(RSA, "two", "RS256")):
        caller = caller_of(access, sent)
        assert (caller.key, caller.name, caller.scopes, caller.models) == ("jwt:alice", "jwt", {"classify"}, None)
    assert access.names == {"shop", "jwt"}
    assert caller_of(access, "t-shop").name == "shop"
    with pytest.raises(PermissionDenied):
        access.check_scope(caller, "explain")


@pytest.mark.parametrize(
    "sent",
    [
        signed(OTHER), signed(kid="three"), signed(iss="https://other.example"), signed(aud="other"), signed(sub=None),
        signed(exp=None), signed(aud=None), signed(exp=time.time() - 60), signed(nbf=time.time() + 600),
        signed("secret" * 8, algorithm="HS256"), jwt.encode({"sub": "alice"}, None, "none"),
        signed()[:-8], "a.b.c", signed(anther_in_flight="many"), signed(exp=1e300),
        signed(sub=""), signed(sub="a\nb"), signed(sub="x" * 257),
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_not_shown(access: Access, sent: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        caller_of(access, sent)
    assert sent not in str(raised.value)


def test_the_public_key_is_no_secret_to_sign_with(access: Access) -> None:
    """The old mistake: a verifier that takes HS256 with the text of an RSA key."""
    public = json.loads(key_set(("two", RSA)))["keys"][0]["n"]
    with pytest.raises(Unauthenticated):
        caller_of(access, signed(base64.urlsafe_b64decode(public + "=="), "two", "HS256"))


def test_claims_bind_a_subject_over_all_of_its_tokens(access: Access) -> None:
    limits = {"anther_models": ["flowers"], "anther_images_per_second": 0.001, "anther_in_flight": 1}
    first, second = (caller_of(access, signed(jti=jti, **limits)) for jti in ("a", "b"))
    assert first == second
    assert first.models == {"flowers"}
    access.charge(first, 1)
    with pytest.raises(QuotaExceeded):
        access.charge(second, 1)
    access.charge(caller_of(access, signed(sub="bob", **limits)), 1)
    access.enter(first)
    with pytest.raises(QuotaExceeded):
        access.enter(second)
    access.leave(first)
    access.enter(second)


def test_keys_change_with_the_file(issuer: JwtIssuer, access: Access, path: Path) -> None:
    old, new = signed(), signed(OTHER)
    caller_of(access, old)
    path.write_bytes(key_set(("one", OTHER)))
    assert issuer.refresh()
    assert not issuer.refresh()
    caller_of(access, new)
    with pytest.raises(Unauthenticated):
        caller_of(access, old)
    path.write_bytes(b"{")
    with pytest.raises(KeysInvalid):
        issuer.refresh()
    caller_of(access, new)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "c3dvcmRmaXNo"}]}',
     b'{"keys": [{"kty": "swordfish"}]}', key_set(("one", KEY), ("one", RSA))],
)  # fmt: skip
def test_keys_that_are_none_are_refused_and_not_shown(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(data)
    with pytest.raises(KeysInvalid, match=r"jwks\.json cannot be used: ") as raised:
        JwtIssuer(path, ISSUER, AUDIENCE)
    assert "swordfish" not in str(raised.value)
