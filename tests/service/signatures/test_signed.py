"""A signature covers every file of one version, nothing more and nothing less, and everything else is refused."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from anther.program import EMBEDDED_MODELS
from bundle.errors import SignatureInvalid, SignatureMismatch, SignatureMissing
from bundle.repository import Repository, open_bundle, signature_of
from service.signatures.signed import require_signed
from service.signatures.trust import Trust
from tests.service.signatures.signer import Authority, Signer, new_key, pem, private_pem, with_resources

# Of models/flowers/3 by model-signing 1.1.1: `sign key … --private_key` and `sign certificate … --certificate_chain`
# with one authority between root and signer. The private keys are lost.
REFERENCE = Path(__file__).parent / "reference"


@pytest.mark.parametrize(
    ("signature", "trusted", "who"),
    [
        ("key.sig", "key.pub", "key 69539e09fd0c2f27"),
        ("certificate.sig", "root.pem", "certificate 'CN=test signer'"),
        ("certificate.sig", "signer.pem", "certificate 'CN=test signer'"),
    ],
)
def test_signatures_of_the_reference_tool_are_accepted(tmp_path, signature, trusted, who) -> None:
    embedded = open_bundle(EMBEDDED_MODELS / "flowers" / "3", 3)
    shutil.copy(REFERENCE / signature, tmp_path / "3.sig")
    moved = dataclasses.replace(embedded, path=tmp_path / "3")
    assert require_signed(moved, Trust.read(REFERENCE / trusted)) == who


def test_the_reference_tool_of_today_agrees(version, trusting, tmp_path) -> None:
    """What it signs we accept, and what we sign it accepts."""
    pytest.importorskip("model_signing", reason="the reference tool comes with anther[signing]")
    from model_signing import signing, verifying

    signer, authority = Signer(), Authority("root")
    key, public, certificate, root = (tmp_path / name for name in ("key.pem", "key.pub", "signer.pem", "root.pem"))
    key.write_bytes(private_pem(signer.key))
    public.write_bytes(signer.public_pem())
    certificate.write_bytes(pem(authority.issue(signer.key)))
    root.write_bytes(pem(authority.certificate))
    path = signature_of(version.path)

    signing.Config().use_elliptic_key_signer(private_key=key).sign(version.path, path)
    assert require_signed(version, trusting(signer.public_pem())).startswith("key ")
    signing.Config().use_certificate_signer(
        private_key=key, signing_certificate=certificate, certificate_chain=[root]
    ).sign(version.path, path)
    assert require_signed(version, trusting(pem(authority.certificate))) == "certificate 'CN=signer'"
    signer.sign(version)
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(version.path, path)
    signer.sign_with(version, authority.issue(signer.key), authority.certificate)
    verifying.Config().use_certificate_verifier(certificate_chain=[root]).verify(version.path, path)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_each_curve_has_its_digest(version, trusting, curve) -> None:
    signer = Signer(new_key(curve))
    signer.sign(version)
    assert require_signed(version, trusting(signer.public_pem())).startswith("key ")


def test_several_keys_are_trusted_while_one_takes_the_others_place(version, trusting) -> None:
    old, new = Signer(), Signer()
    trust = trusting(old.public_pem() + new.public_pem())
    for signer in (old, new):
        signer.sign(version)
        assert require_signed(version, trust).startswith("key ")


def test_an_unsigned_version_is_missing_its_signature(version, trusting) -> None:
    with pytest.raises(SignatureMissing, match=r"1\.sig is missing"):
        require_signed(version, trusting(Signer().public_pem()))


def test_somebody_elses_signature_is_refused(version, trusting) -> None:
    """Also where it bears the trusted key's name."""
    trusted, other = Signer(), Signer()
    trust = trusting(trusted.public_pem())
    other.sign(version)
    with pytest.raises(SignatureInvalid, match="not signed with key"):
        require_signed(version, trust)
    hint = trusted.envelope(version).hint
    Signer.write(version, dataclasses.replace(other.envelope(version), hint=hint).to_json())
    with pytest.raises(SignatureInvalid, match="not signed with key"):
        require_signed(version, trust)


def test_a_signature_does_not_go_with_another_number(version, trusting, publish_bundle) -> None:
    """An old version that comes back under a new number would undo what followed it."""
    signer = Signer()
    signature = signer.sign(version)
    root = version.path.parent.parent
    shutil.copytree(version.path, version.path.with_name("2"))
    shutil.copy(signature, version.path.with_name("2.sig"))
    with pytest.raises(SignatureInvalid, match="made for version '1', not 2"):
        require_signed(Repository(root).open("flowers", 2), trusting(signer.public_pem()))


def test_a_version_of_another_signature_is_refused(version, trusting, publish_bundle) -> None:
    """Both are signed; the folders changed places."""
    signer = Signer()
    root = version.path.parent.parent
    publish_bundle(root, seed=2)
    signer.sign(version)
    second = Repository(root).open("flowers", 2)
    swapped = dataclasses.replace(second, path=version.path, version=1)
    with pytest.raises(SignatureMismatch, match=r"changed: golden\.npz, manifest\.json, model\.onnx, report\.html"):
        require_signed(swapped, trusting(signer.public_pem()))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda digests: digests.pop("report.html"), "added since: report.html"),
        (lambda digests: digests.update({"weights.bin": "00" * 32}), "missing: weights.bin"),
        (lambda digests: digests.update({"model.onnx": "00" * 32}), "changed: model.onnx"),
        (lambda digests: digests.update({"manifest.json": "00" * 32}), "changed: manifest.json"),
    ],
)
def test_other_files_than_the_signed_ones_are_refused(version, trusting, change, found) -> None:
    signer, digests = Signer(), dict(version.digests)
    change(digests)
    signer.sign(version, lambda statement: with_resources(statement, digests))
    with pytest.raises(SignatureMismatch, match=found):
        require_signed(version, trusting(signer.public_pem()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.update(predicateType="https://model_signing/Digests/v0.1"), "'predicateType' is"),
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "'_type' is"),
        (lambda s: s["predicate"]["serialization"].update(method="shards"), "other digests than SHA-256"),
        (lambda s: s["predicate"]["resources"].append(s["predicate"]["resources"][0]), "names a file twice"),
        (lambda s: s["subject"][0]["digest"].update(sha256="00" * 32), "contradict the one of all files"),
        (lambda s: s.pop("predicate"), "unreadable"),
        (lambda s: s.update(subject=[]), "not enough values"),
    ],
)
def test_what_is_signed_must_be_a_statement_about_a_version(version, trusting, change, reason) -> None:
    signer = Signer()
    signer.sign(version, change)
    with pytest.raises(SignatureInvalid, match=reason):
        require_signed(version, trusting(signer.public_pem()))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"mediaType": "text/plain"}', "[" * 100_000, "é", '{"mediaType": 1e999}']
)
def test_what_is_no_signature_is_refused(version, trusting, text) -> None:
    Signer.write(version, text)
    with pytest.raises(SignatureInvalid):
        require_signed(version, trusting(Signer().public_pem()))


@pytest.mark.parametrize("part", ["payload", "signature"])
def test_no_byte_of_a_signature_may_change(version, trusting, part) -> None:
    signer = Signer()
    envelope = signer.envelope(version)
    data = bytearray(getattr(envelope, part))
    data[len(data) // 2] ^= 1
    Signer.write(version, dataclasses.replace(envelope, **{part: bytes(data)}).to_json())
    with pytest.raises(SignatureInvalid, match="not signed with key"):
        require_signed(version, trusting(signer.public_pem()))
