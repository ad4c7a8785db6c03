"""Somebody who signs versions in this process, with mistakes where a test asks for them, and certificates for them."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bundle.repository import Bundle, signature_of
from service.signatures.envelope import Envelope, pre_authentication
from service.signatures.signed import root_digest
from service.signatures.trust import digest_for, key_hash

Change = Callable[[dict[str, Any]], object]


def new_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@dataclass
class Signer:
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def public_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def private_pem(self) -> bytes:
        return private_pem(self.key)

    def sign(self, bundle: Bundle, change: Change = lambda statement: None) -> Path:
        """Sign as the reference tool does; `change` edits the statement first."""
        return self.write(bundle, self.envelope(bundle, change).to_json())

    def envelope(self, bundle: Bundle, change: Change = lambda statement: None) -> Envelope:
        statement = _statement(bundle)
        change(statement)
        payload = json.dumps(statement).encode()
        public = self.key.public_key()
        return Envelope(payload, self.key.sign(pre_authentication(payload), digest_for(public)), key_hash(public))

    def sign_with(self, bundle: Bundle, *chain: x509.Certificate) -> Path:
        record = json.loads(self.envelope(bundle).to_json())
        certificates = [{"rawBytes": base64.b64encode(der(each)).decode()} for each in chain]
        record["verificationMaterial"] = {"x509CertificateChain": {"certificates": certificates}, "tlogEntries": []}
        return self.write(bundle, json.dumps(record))

    @staticmethod
    def write(bundle: Bundle, text: str) -> Path:
        path = signature_of(bundle.path)
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Validity:
    begin: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=1))
    days: int = 2


class Authority:
    """Issues certificates; its own is `certificate`. `below` is how many authorities may follow it."""

    def __init__(
        self, name: str, by: "Authority | None" = None, validity: Validity = Validity(), below: int | None = None
    ) -> None:
        self.name, self.key = name, new_key()
        issuer = by or self
        builder = _builder(name, self.key.public_key(), issuer.name, validity)
        builder = builder.add_extension(x509.BasicConstraints(True, below), critical=True)
        builder = builder.add_extension(_usage(sign=False, issue=True), critical=True)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def issue(
        self,
        key: ec.EllipticCurvePrivateKey,
        purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CODE_SIGNING,),
        sign: bool | None = True,
        validity: Validity = Validity(),
    ) -> x509.Certificate:
        """A signer's; `sign` None leaves out its key usage."""
        builder = _builder("signer", key.public_key(), self.name, validity)
        if sign is not None:
            builder = builder.add_extension(_usage(sign=sign, issue=False), critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _statement(bundle: Bundle) -> dict[str, Any]:
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in bundle.digests.items()]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": str(bundle.version), "digest": {"sha256": root_digest(bundle.digests)}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
        },
    }


def with_resources(statement: dict[str, Any], digests: dict[str, str]) -> None:
    """Have a statement name these files and the digest that follows from them."""
    statement["predicate"]["resources"] = [
        {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in digests.items()
    ]
    joined = b"".join(bytes.fromhex(digests[name]) for name in sorted(digests))
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(joined).hexdigest()


def _builder(name: str, public: ec.EllipticCurvePublicKey, issuer: str, validity: Validity) -> x509.CertificateBuilder:
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, issuer))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    end = validity.begin + timedelta(days=validity.days)
    return builder.not_valid_before(validity.begin).not_valid_after(end)


def _usage(*, sign: bool, issue: bool) -> x509.KeyUsage:
    return x509.KeyUsage(sign, False, False, False, False, issue, False, False, False)
