"""A signed statement as it lies on the disk: a Sigstore bundle around a DSSE envelope, as OpenSSF Model Signing has it.

Only what is needed to check a signature is read. Whether it is to be trusted says `service.signatures.trust`.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 2**20  # of a signature's file; one of five files takes 3 KB
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """`hint` is the SHA-256 of the PEM of the key, '' where there is none; `certificates` begin with the signer's."""

    payload: bytes  # an in-toto statement, JSON
    signature: bytes
    hint: str = ""
    certificates: tuple[bytes, ...] = ()  # DER

    @property
    def signed(self) -> bytes:
        """What the signature is over: DSSE's pre-authentication encoding."""
        return pre_authentication(self.payload)

    @classmethod
    def from_json(cls, data: bytes) -> "Envelope":
        """Raises `ValueError` with the reason."""
        try:
            return _read(json.loads(data))
        except (KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise ValueError(f"no Sigstore bundle with a DSSE envelope ({type(exc).__name__}: {exc})") from exc

    def to_json(self) -> str:
        """For a key; certificates are written by the reference tool alone."""
        envelope = {
            "payload": _encoded(self.payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": _encoded(self.signature), "keyid": ""}],
        }
        material = {"publicKey": {"hint": self.hint}, "tlogEntries": []}
        record = {"mediaType": _MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
        return json.dumps(record, indent=2) + "\n"


def pre_authentication(payload: bytes) -> bytes:
    """DSSE 1.0: `DSSEv1 <length of the type> <type> <length of the payload> <payload>`."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _read(record: Any) -> Envelope:
    if (kind := record["mediaType"]) != _MEDIA_TYPE:
        raise ValueError(f"media type {kind!r}; expected {_MEDIA_TYPE!r}")
    envelope, material = record["dsseEnvelope"], record["verificationMaterial"]
    if (kind := envelope["payloadType"]) != PAYLOAD_TYPE:
        raise ValueError(f"payload type {kind!r}; expected {PAYLOAD_TYPE!r}")
    if len(envelope["signatures"]) != 1:
        raise ValueError(f"{len(envelope['signatures'])} signatures; expected one")
    chain = material.get("x509CertificateChain", {}).get("certificates", [])
    return Envelope(
        _decoded(envelope["payload"]),
        _decoded(envelope["signatures"][0]["sig"]),
        str(material.get("publicKey", {}).get("hint") or ""),
        tuple(_decoded(certificate["rawBytes"]) for certificate in chain),
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError(f"no Base64 ({exc})") from exc
