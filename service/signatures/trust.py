"""Whom a signature is believed: public keys or certificates of a PEM file. `cryptography` does the arithmetic.

Curves, digests and the time of validity are those of OpenSSF Model Signing 1.1; what a certificate may be used for is
stricter (docs/security.md).
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from anther.files import read_regular
from service.errors import TrustUnusable
from service.signatures.envelope import Envelope

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_MAX_BYTES = 2**20  # of the PEM file
_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


@dataclass(frozen=True)
class Trust:
    """Each key, and each certificate as a root of trust or as a signer itself. Several are for the time of a change."""

    keys: dict[str, ec.EllipticCurvePublicKey]  # SHA-256 of the PEM, hexadecimal → key
    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, path: Path) -> "Trust":
        """Raises `TrustUnusable`."""
        try:
            return _parsed(read_regular(path.resolve(), _MAX_BYTES))
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise TrustUnusable(path, str(exc)) from exc
        except OSError as exc:
            raise TrustUnusable(path, exc.strerror or str(exc)) from exc

    def verify(self, envelope: Envelope) -> str:
        """Who signed, in a few words. Raises `ValueError` with the reason where nobody who is trusted did."""
        if envelope.certificates:
            certificate = self._chained(envelope.certificates)
            _verify(_elliptic(certificate.public_key()), envelope)
            return f"certificate '{certificate.subject.rfc4514_string()}'"
        for hint, key in self.keys.items():
            if envelope.hint in ("", hint) and _verifies(key, envelope):
                return f"key {hint[:16]}"
        raise ValueError(f"it is not signed with {self}")

    def __str__(self) -> str:
        names = [*(f"key {hint[:16]}" for hint in self.keys)]
        names += [f"certificate '{each.subject.rfc4514_string()}'" for each in self.certificates]
        return " or ".join(names)

    def _chained(self, chain: tuple[bytes, ...]) -> x509.Certificate:
        """The signer's certificate, when it leads to a trusted one. Raises `ValueError`."""
        signer, *others = (x509.load_der_x509_certificate(each) for each in chain)
        _require_signer(signer)
        if signer in self.certificates:
            return signer
        if not self.certificates:
            raise ValueError(f"it is signed with a certificate, not with {self}")
        policy = verification.PolicyBuilder().store(verification.Store(list(self.certificates)))
        policy = policy.time(signer.not_valid_before_utc).extension_policies(ca_policy=_ISSUER, ee_policy=_SIGNER)
        try:
            policy.build_client_verifier().verify(signer, others)
        except verification.VerificationError as exc:
            raise ValueError(f"its certificate does not lead to {self} ({exc})") from exc
        return signer


def key_hash(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key's PEM, hexadecimal, by which a signature names its key."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def digest_for(key: ec.EllipticCurvePublicKey) -> ec.ECDSA:
    """The algorithm that goes with a key's curve. Raises `ValueError` for another curve."""
    if key.curve.name not in _DIGESTS:
        raise ValueError(f"a key on the curve {key.curve.name}")
    return ec.ECDSA(_DIGESTS[key.curve.name])


def _parsed(pem: bytes) -> Trust:
    keys, certificates = {}, []
    for block in _BLOCK.finditer(pem):
        label = block[1].decode()
        if label == "PUBLIC KEY":
            key = _elliptic(serialization.load_pem_public_key(block[0]))
            keys[key_hash(key)] = key
        elif label == "CERTIFICATE":
            certificates.append(x509.load_pem_x509_certificate(block[0]))
        else:
            raise ValueError(f"it holds a '{label}'")
    if not keys and not certificates:
        raise ValueError("it holds neither public key nor certificate")
    return Trust(keys, tuple(certificates))


def _elliptic(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError(f"a key of the type {type(key).__name__}")
    digest_for(key)
    return key


def _verify(key: ec.EllipticCurvePublicKey, envelope: Envelope) -> None:
    if not _verifies(key, envelope):
        raise ValueError("the signature does not fit its text")


def _verifies(key: ec.EllipticCurvePublicKey, envelope: Envelope) -> bool:
    try:
        key.verify(envelope.signature, envelope.signed, digest_for(key))
    except InvalidSignature:
        return False
    return True


def _require_signer(certificate: x509.Certificate) -> None:
    """Whether a certificate is for signing code: one for a web server of the same authority must not do."""
    if certificate.not_valid_before_utc > datetime.now(UTC):
        raise ValueError(f"its certificate is not valid before {certificate.not_valid_before_utc.isoformat()}")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = None
    forbidden = usage is not None and not usage.digital_signature
    other = purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes
    if forbidden or other or (usage is None and purposes is None):
        raise ValueError("its certificate is not for signing code (key usage, extended key usage)")


def _require_issuer(_: verification.Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError(f"'{certificate.subject.rfc4514_string()}' may not sign certificates")


def _require_authority(
    _: verification.Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints
) -> None:
    if not constraints.ca:
        raise ValueError(f"'{certificate.subject.rfc4514_string()}' is no authority")


_SIGNER = verification.ExtensionPolicy.permit_all()  # `_require_signer` has looked
_ISSUER = (
    verification.ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _require_authority)
    .may_be_present(x509.KeyUsage, verification.Criticality.AGNOSTIC, _require_issuer)
)
