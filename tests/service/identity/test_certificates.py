"""The server's certificate: what does not fit is refused whole and named, nothing secret shown, the last good kept."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from service.errors import CertificatesInvalid
from service.identity.certificates import CertificateFiles, Certificates, Pair
from service.identity.follower import Follower
from tests.authority import Authority, Issued

Spoil = Callable[[Path, Path], object]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("good")


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.issue()


def encrypted(key: bytes) -> bytes:
    found = load_pem_private_key(key, None)
    return found.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"swordfish"))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda certificate, key: certificate.unlink(), r"tls.crt cannot be used: No such file"),
        (lambda certificate, key: certificate.write_text("nothing"), r"tls.crt .* no whole certificates"),
        (lambda certificate, key: certificate.write_bytes(certificate.read_bytes()[:300]), "no whole certificates"),
        (lambda certificate, key: key.write_bytes(key.read_bytes()[:100]), r"tls.key .* no whole private key"),
        (lambda certificate, key: key.write_bytes(encrypted(key.read_bytes())), "the key is encrypted"),
        (lambda certificate, key: key.write_bytes(Authority("other").issue().key), "is not that of the certificate"),
        (lambda certificate, key: key.write_bytes(b"x" * 5 * 2**20), "5,242,880 bytes"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, issued: Issued, spoil: Spoil, why: str) -> None:
    certificate, key = issued.write(tmp_path)
    secret = key.read_text().splitlines()[1][:16]
    spoil(certificate, key)
    with pytest.raises(CertificatesInvalid, match=why) as raised:
        Certificates(CertificateFiles(certificate, key), lambda _: None)
    assert secret not in str(raised.value)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP521R1()),
            rsa.generate_private_key(65537, 1024)], ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_keys_that_grpc_or_clients_refuse_are_refused_at_once(
    tmp_path: Path, authority: Authority, key: object
) -> None:
    paths = authority.issue(key=key).write(tmp_path)
    with pytest.raises(CertificatesInvalid, match="it should hold an RSA key of 2048 bits or more"):
        Certificates(CertificateFiles(*paths), lambda _: None)


def test_an_expired_certificate_is_none(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(CertificatesInvalid, match="expired on 20"):
        Certificates(CertificateFiles(*authority.issue(days=-1).write(tmp_path)), lambda _: None)


def test_files_are_followed_through_links_and_the_last_good_pair_is_kept(
    tmp_path: Path, authority: Authority, issued: Issued, caplog: pytest.LogCaptureFixture
) -> None:
    """As Kubernetes mounts them: `tls.crt` and `tls.key` lead through `..data`, which is turned round in one step."""
    for name, pair in (("old", issued), ("new", authority.issue(days=7))):
        pair.write(tmp_path / name)
    turn(tmp_path, "old")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    pairs: list[Pair] = []
    certificates = Certificates(CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key"), pairs.append)
    checks: list[tuple[str, bool]] = []
    follower = Follower([certificates], lambda what, in_use: checks.append((what, in_use)))

    follower.check()
    assert len(pairs) == 1

    turn(tmp_path, "new")
    follower.check()
    assert certificates.current is pairs[1]
    assert (pairs[1].expires["server"] - datetime.now(UTC)).days in (6, 7)

    (tmp_path / "new/tls.key").write_bytes(issued.key[:-9])
    for _ in range(3):
        follower.check()
    assert certificates.current is pairs[1]
    (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told.startswith(f"the TLS file {tmp_path / 'tls.key'} cannot be used: it holds no whole private key")
    assert told.endswith("what was read before stays in use")
    turn(tmp_path, "old")
    follower.check()
    assert len(pairs) == 3
    assert checks == [("certificates", True)] * 2 + [("certificates", False)] * 3 + [("certificates", True)]
    assert issued.key.splitlines()[1].decode() not in caplog.text + repr(certificates.current)


def turn(folder: Path, name: str) -> None:
    (folder / "..new").symlink_to(name)
    (folder / "..new").replace(folder / "..data")
