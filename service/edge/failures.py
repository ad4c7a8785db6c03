"""Domain errors to the codes that all protocols share: the one table, and what goes with each code.

The codes are those of google.rpc.Code, by name: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
"""

from dataclasses import dataclass
from typing import Literal

from anther.errors import AntherError, reason_of
from bundle import errors as bundle_errors
from service import errors

Code = Literal[
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "UNAUTHENTICATED",
]

_INTERNAL_TEXT = "internal error; the trace is in the server's log"
# A gRPC status travels in HTTP/2 headers, of which clients take 8 KiB; what a client sent comes back within them.
_MESSAGE_LENGTH, _FACT_LENGTH = 300, 120

# An error's own class decides, then the nearest class above it.
CODES: dict[type[AntherError], Code] = {
    bundle_errors.ImageRefused: "INVALID_ARGUMENT",
    bundle_errors.ModelNotFound: "NOT_FOUND",
    bundle_errors.VersionNotFound: "NOT_FOUND",
    bundle_errors.BundleRefused: "UNAVAILABLE",
    bundle_errors.NoEarlierVersion: "FAILED_PRECONDITION",
    bundle_errors.NotPublished: "FAILED_PRECONDITION",
    bundle_errors.PolicyNotWritable: "FAILED_PRECONDITION",
    errors.InvalidArgument: "INVALID_ARGUMENT",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.QuotaExceeded: "RESOURCE_EXHAUSTED",
    errors.TokensInvalid: "UNAVAILABLE",
    errors.KeysInvalid: "UNAVAILABLE",
    errors.CertificatesInvalid: "UNAVAILABLE",
    errors.QueueFull: "RESOURCE_EXHAUSTED",
    errors.TooManyCalls: "RESOURCE_EXHAUSTED",
    errors.ArrivalsFull: "RESOURCE_EXHAUSTED",
    errors.ArrivedTooSlowly: "DEADLINE_EXCEEDED",
    errors.StreamSilent: "UNAVAILABLE",
    errors.DeadlineExpired: "DEADLINE_EXCEEDED",
    errors.Draining: "UNAVAILABLE",
    errors.DecoderUnavailable: "UNAVAILABLE",
    errors.NoModelReady: "UNAVAILABLE",
    errors.NoEvidence: "FAILED_PRECONDITION",
    errors.CanaryNotFound: "NOT_FOUND",
    errors.ControlDisabled: "PERMISSION_DENIED",
    errors.OriginRefused: "PERMISSION_DENIED",
    errors.NotOffered: "UNIMPLEMENTED",
    errors.UnknownPath: "NOT_FOUND",
    errors.MethodNotAllowed: "UNIMPLEMENTED",
    errors.RequestMalformed: "INVALID_ARGUMENT",
    errors.HeadersTooLarge: "INVALID_ARGUMENT",
    errors.RequestTooLarge: "RESOURCE_EXHAUSTED",
    errors.EncodingRefused: "INVALID_ARGUMENT",
    errors.DeviceUnavailable: "UNAVAILABLE",
    errors.RuntimeMissing: "UNAVAILABLE",
    errors.TracingMissing: "UNAVAILABLE",
    errors.RuntimeConflict: "UNAVAILABLE",
    errors.TrustUnusable: "UNAVAILABLE",
    errors.AttestationRefused: "FAILED_PRECONDITION",
    errors.PortUnavailable: "UNAVAILABLE",
    errors.WorkerFailed: "UNAVAILABLE",
}

_SEE_LOG = "the server's log says why"

# What tells of the server's own files and libraries: callers read these sentences in place of the error's.
OWN_AFFAIRS: dict[type[AntherError], str] = {
    bundle_errors.BundleRefused: "no version of the model may serve; RepositoryIndex and the server's log say why",
    bundle_errors.NotPublished: f"the version could not be published; {_SEE_LOG}",
    bundle_errors.PolicyNotWritable: f"the server cannot write which versions serve, so nothing changed; {_SEE_LOG}",
    errors.NoModelReady: f"no model can serve now; {_SEE_LOG}",
    errors.TokensInvalid: f"the server cannot read its tokens; {_SEE_LOG}",
    errors.KeysInvalid: f"the server cannot read its tokens' issuer's keys; {_SEE_LOG}",
    errors.CertificatesInvalid: f"the server cannot read its certificates; {_SEE_LOG}",
    errors.DeviceUnavailable: f"the server's device cannot be used; {_SEE_LOG}",
    errors.RuntimeMissing: f"the server lacks a library; {_SEE_LOG}",
    errors.TracingMissing: f"the server lacks a library; {_SEE_LOG}",
    errors.RuntimeConflict: f"the server's libraries conflict; {_SEE_LOG}",
    errors.TrustUnusable: f"the server cannot read which signatures it trusts; {_SEE_LOG}",
    errors.AttestationRefused: f"the server cannot read an attestation; {_SEE_LOG}",
    errors.PortUnavailable: f"the server cannot listen; {_SEE_LOG}",
    errors.WorkerFailed: f"the server did not start; {_SEE_LOG}",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request failed, in the words of no protocol. `facts` are the error's own, clipped."""

    code: Code
    reason: str
    message: str
    facts: dict[str, str]
    retry_after_s: float | None = None


def failure_of(error: BaseException) -> Failure:
    """The failure for any exception; one that is not ours becomes INTERNAL with a fixed text."""
    if not isinstance(error, AntherError):
        return Failure("INTERNAL", "INTERNAL", _INTERNAL_TEXT, {})
    kinds = type(error).__mro__
    code: Code = next((CODES[kind] for kind in kinds if kind in CODES), "INTERNAL")
    retry = error.retry_after_s if isinstance(error, errors.ServiceError) else None
    told = next((OWN_AFFAIRS[kind] for kind in kinds if kind in OWN_AFFAIRS), None)
    if told is not None:
        return Failure(code, reason_of(type(error)), told, {}, retry)
    facts = {name: _clipped(value, _FACT_LENGTH) for name, value in error.facts.items()}
    return Failure(code, reason_of(type(error)), _clipped(str(error), _MESSAGE_LENGTH), facts, retry)


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
