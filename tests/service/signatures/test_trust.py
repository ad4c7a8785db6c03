"""Whose signature counts: the keys and certificates of one file, and what these may be used for."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from bundle.errors import SignatureInvalid
from service.errors import TrustUnusable
from service.signatures.signed import require_signed
from service.signatures.trust import Trust
from tests.service.signatures.signer import Authority, Signer, Validity, new_key, pem, private_pem

LONG_AGO = Validity(datetime.now(UTC) - timedelta(days=1000), days=10)
WHEN_ALL_WERE_VALID = Validity(datetime.now(UTC) - timedelta(days=1000), days=2000)
LATER = Validity(datetime.now(UTC) + timedelta(days=10))
SERVER, CODE = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING


def test_a_chain_leads_to_a_trusted_root(version, trusting) -> None:
    root = Authority("root")
    middle, signer = Authority("middle", by=root), Signer()
    signer.sign_with(version, middle.issue(signer.key), middle.certificate)
    assert require_signed(version, trusting(pem(root.certificate))) == "certificate 'CN=signer'"


def test_a_chain_without_a_trusted_root_is_refused(version, trusting) -> None:
    """A self-made root of the same name is another one, and a missing link leads nowhere."""
    root, signer = Authority("root"), Signer()
    middle, trust = Authority("middle", by=root), trusting(pem(Authority("root").certificate))
    signer.sign_with(version, middle.issue(signer.key), middle.certificate, root.certificate)
    with pytest.raises(SignatureInvalid, match="does not lead to certificate 'CN=root'"):
        require_signed(version, trust)
    signer.sign_with(version, middle.issue(signer.key))
    with pytest.raises(SignatureInvalid, match="does not lead to"):
        require_signed(version, trusting(pem(root.certificate)))


def test_a_signer_issues_no_certificates(version, trusting) -> None:
    """Who has a certificate for signing must not make others."""
    root, signer, friend = Authority("root"), Signer(), Signer()
    false_authority = Authority("signer")
    false_authority.key = signer.key
    chain = false_authority.issue(friend.key), root.issue(signer.key)
    friend.sign_with(version, *chain)
    with pytest.raises(SignatureInvalid, match="does not lead to"):
        require_signed(version, trusting(pem(root.certificate)))


def test_an_authority_that_may_have_none_below_it_has_none(version, trusting) -> None:
    root, signer = Authority("root", below=0), Signer()
    middle = Authority("middle", by=root)
    signer.sign_with(version, middle.issue(signer.key), middle.certificate)
    with pytest.raises(SignatureInvalid, match="does not lead to"):
        require_signed(version, trusting(pem(root.certificate)))


def test_a_chain_of_damaged_certificates_is_refused(version, trusting) -> None:
    """Whatever is in it, the reason is the signature's."""
    root, signer = Authority("root"), Signer()
    path = signer.sign_with(version, root.issue(signer.key))
    record = json.loads(path.read_text())
    (certificate,) = record["verificationMaterial"]["x509CertificateChain"]["certificates"]
    whole = bytearray(base64.b64decode(certificate["rawBytes"]))
    for place in range(0, len(whole), 7):
        damaged = whole.copy()
        damaged[place] ^= 0xFF
        certificate["rawBytes"] = base64.b64encode(damaged).decode()
        path.write_text(json.dumps(record))
        with pytest.raises(SignatureInvalid):
            require_signed(version, trusting(pem(root.certificate)))


def test_the_signature_must_be_by_the_certificates_key(version, trusting) -> None:
    root, signer = Authority("root"), Signer()
    signer.sign_with(version, root.issue(new_key()))
    with pytest.raises(SignatureInvalid, match="does not fit its text"):
        require_signed(version, trusting(pem(root.certificate)))


@pytest.mark.parametrize(
    ("purposes", "sign"), [((SERVER,), True), ((CODE,), False), ((), False), ((), None), ((SERVER,), None)]
)
def test_a_certificate_must_be_for_signing(version, trusting, purposes, sign) -> None:
    """One for a web server of the same authority must not do."""
    root, signer = Authority("root"), Signer()
    signer.sign_with(version, root.issue(signer.key, purposes, sign))
    with pytest.raises(SignatureInvalid, match="not for signing code"):
        require_signed(version, trusting(pem(root.certificate)))


@pytest.mark.parametrize(("purposes", "sign"), [((CODE,), True), ((), True), ((CODE,), None)])
def test_one_that_says_so_in_either_way_will_do(version, trusting, purposes, sign) -> None:
    root, signer = Authority("root"), Signer()
    signer.sign_with(version, root.issue(signer.key, purposes, sign))
    assert require_signed(version, trusting(pem(root.certificate)))


@pytest.mark.parametrize(
    ("authority", "signer_s", "reason"),
    [
        (WHEN_ALL_WERE_VALID, LONG_AGO, ""),  # as in the reference tool: nobody witnesses when a signature was made
        (LONG_AGO, Validity(), "does not lead to"),
        (WHEN_ALL_WERE_VALID, LATER, "not valid before"),
    ],
)
def test_times_count_at_the_beginning_of_the_signers(version, trusting, authority, signer_s, reason) -> None:
    root, signer = Authority("root", validity=authority), Signer()
    signer.sign_with(version, root.issue(signer.key, validity=signer_s))
    trust = trusting(pem(root.certificate))
    if reason:
        with pytest.raises(SignatureInvalid, match=reason):
            require_signed(version, trust)
    else:
        assert require_signed(version, trust)


def test_a_key_is_not_for_certificates_nor_a_certificate_for_keys(version, trusting) -> None:
    root, signer = Authority("root"), Signer()
    signer.sign_with(version, root.issue(signer.key))
    with pytest.raises(SignatureInvalid, match="signed with a certificate, not with key"):
        require_signed(version, trusting(signer.public_pem()))
    signer.sign(version)
    with pytest.raises(SignatureInvalid, match="not signed with certificate 'CN=root'"):
        require_signed(version, trusting(pem(root.certificate)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither public key nor certificate"),
        (private_pem(new_key()), "it holds a 'PRIVATE KEY'"),
        (Signer(new_key(ec.SECP256K1)).public_pem(), "the curve secp256k1"),
        (
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            "Ed25519PublicKey",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be trusted"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be trusted"),
    ],
    ids=["nothing", "private", "curve", "Ed25519", "damaged key", "damaged certificate"],
)
def test_a_file_that_cannot_be_trusted_says_why(trusting, content, reason) -> None:
    with pytest.raises(TrustUnusable, match=reason):
        trusting(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrustUnusable, match="No such file"):
        Trust.read(tmp_path / "absent.pem")
