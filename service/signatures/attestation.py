"""What a host says of a version that it has proven: an in-toto statement, signed or not.

"On this processor, in int8, the golden pictures came out equal, and no logit differed by more than x." The subject is
the digest of all files that a signature of the version names too.
"""

import json
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from anther.files import read_regular
from bundle.repository import Bundle
from service.errors import AttestationRefused
from service.signatures.envelope import MAX_BYTES, Envelope, pre_authentication
from service.signatures.signed import STATEMENT_TYPE, root_digest
from service.signatures.trust import Trust, digest_for, key_hash

PREDICATE_TYPE = "https://anther/golden-replay/v1"


def statement(bundle: Bundle, proof: dict[str, Any]) -> str:
    """The statement as JSON. `proof` has what the replay found; the host and the time are added."""
    record = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{bundle.name}/{bundle.version}", "digest": {"sha256": root_digest(bundle.digests)}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"time": datetime.now(UTC).isoformat(timespec="seconds"), "host": _host(), **proof},
    }
    return json.dumps(record, indent=2) + "\n"


def signed(text: str, key: Path) -> str:
    """The statement in a Sigstore bundle, signed with a private key in PEM. Raises `AttestationRefused`."""
    try:
        private = serialization.load_pem_private_key(read_regular(key.resolve(), MAX_BYTES), None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"a key of the type {type(private).__name__}")
        public, payload = private.public_key(), text.encode()
        signature = private.sign(pre_authentication(payload), digest_for(public))
    except (ValueError, TypeError, OSError) as exc:  # TypeError: the key is encrypted
        raise AttestationRefused(key, f"it cannot be signed with this key ({exc})") from exc
    return Envelope(payload, signature, key_hash(public)).to_json()


def read(path: Path, bundle: Bundle, trust: Trust | None) -> tuple[dict[str, Any], str]:
    """The predicate of an attestation of this version, and who signed it, '' where nobody's signature was asked for.

    Raises `AttestationRefused` where it speaks of another version, or where `trust` is given and nobody of it signed.
    """
    try:
        data = read_regular(path.resolve(), MAX_BYTES)
        record, signer = _opened(data, trust)
        return _predicate(record, bundle), signer
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as exc:
        reason = str(exc) if isinstance(exc, ValueError | OSError) else f"no statement ({type(exc).__name__}: {exc})"
        raise AttestationRefused(path, reason) from exc


def _opened(data: bytes, trust: Trust | None) -> tuple[dict[str, Any], str]:
    record: dict[str, Any] = json.loads(data)
    if "dsseEnvelope" not in record:
        if trust is not None:
            raise ValueError("it is not signed")
        return record, ""
    envelope = Envelope.from_json(data)
    signer = "" if trust is None else trust.verify(envelope)
    found: dict[str, Any] = json.loads(envelope.payload)
    return found, signer


def _predicate(record: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if record[field] != expected:
            raise ValueError(f"'{field}' is {record[field]!r}; expected {expected!r}")
    (subject,) = record["subject"]
    ours = f"{bundle.name}/{bundle.version}", root_digest(bundle.digests)
    found = subject["name"], subject["digest"]["sha256"]
    if found != ours:
        raise ValueError(f"it speaks of {found[0]} with the digest {found[1]}, not of {ours[0]} with {ours[1]}")
    predicate: dict[str, Any] = record["predicate"]
    return dict(predicate)


def _host() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "anther": metadata.version("anther"),
        "onnxruntime": _onnxruntime(),
    }


def _onnxruntime() -> str:
    import onnxruntime

    version: str = onnxruntime.__version__
    return version


def _processor() -> str:
    """Its model's name; on other systems than Linux, and on Arm, what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or os.uname().machine)
