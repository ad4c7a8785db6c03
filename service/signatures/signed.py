"""Whether a version is what somebody signed: every file of it, nothing more and nothing less.

The statement is that of OpenSSF Model Signing 1.0, https://model_signing/signature/v1.0. The digests that it names are
held against those with which the bundle was opened, so what was checked is what is read later.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anther.files import read_regular
from bundle.errors import BundleRefused, SignatureInvalid, SignatureMismatch, SignatureMissing
from bundle.repository import Bundle, signature_of
from service.signatures.envelope import MAX_BYTES, Envelope
from service.signatures.trust import Trust

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"


def require_signed(bundle: Bundle, trust: Trust) -> str:
    """Who signed the version. Raises `SignatureMissing`, `SignatureInvalid` or `SignatureMismatch`."""
    path = signature_of(bundle.path)
    envelope = _read(path)
    try:
        signer = trust.verify(envelope)
        signed = _digests(json.loads(envelope.payload), bundle.version)
    except Exception as exc:  # of a damaged certificate, `cryptography` raises errors without a common base
        reason = str(exc) if isinstance(exc, ValueError) else f"unreadable ({type(exc).__name__}: {exc})"
        raise SignatureInvalid(path, reason) from exc
    if signed != bundle.digests:
        raise SignatureMismatch(path, _differences(signed, bundle.digests))
    return signer


def root_digest(digests: Mapping[str, str]) -> str:
    """One SHA-256 for all files: over their digests, in the order of the names, as Model Signing has it."""
    joined = b"".join(bytes.fromhex(digests[name]) for name in sorted(digests))
    return hashlib.sha256(joined).hexdigest()


def _read(path: Path) -> Envelope:
    try:
        return Envelope.from_json(read_regular(path, MAX_BYTES))
    except FileNotFoundError as exc:
        raise SignatureMissing(path) from exc
    except ValueError as exc:
        raise SignatureInvalid(path, str(exc)) from exc
    except OSError as exc:  # the cause tells the registry to try again
        raise BundleRefused(f"signature {path} cannot be read ({exc.strerror})") from exc


def _digests(statement: dict[str, Any], version: int) -> dict[str, str]:
    """File → SHA-256. Raises `ValueError`, and whatever another structure leads to."""
    for field, expected in (("_type", STATEMENT_TYPE), ("predicateType", _PREDICATE_TYPE)):
        if statement[field] != expected:
            raise ValueError(f"'{field}' is {statement[field]!r}; expected {expected!r}")
    (subject,) = statement["subject"]
    if subject["name"] != str(version):  # an old version must not come back under a new number
        raise ValueError(f"it was made for version {subject['name']!r}, not {version}")
    serialization, resources = statement["predicate"]["serialization"], statement["predicate"]["resources"]
    if (serialization["method"], serialization["hash_type"]) != ("files", "sha256"):
        raise ValueError("it has other digests than SHA-256 of whole files")
    found = {resource["name"]: resource["digest"] for resource in resources}
    if len(found) != len(resources) or any(resource["algorithm"] != "sha256" for resource in resources):
        raise ValueError("it names a file twice, or with another digest than SHA-256")
    if root_digest(found) != subject["digest"]["sha256"]:
        raise ValueError("its digests contradict the one of all files")
    return found


def _differences(signed: Mapping[str, str], found: Mapping[str, str]) -> str:
    parts = {
        "added since": sorted(found.keys() - signed.keys()),
        "missing": sorted(signed.keys() - found.keys()),
        "changed": sorted(name for name in found.keys() & signed.keys() if found[name] != signed[name]),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
