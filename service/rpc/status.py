"""Domain errors to gRPC status codes: the one table, and the details that go with each."""

import math
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from anther.errors import AntherError, reason_of
from bundle import errors as bundle_errors
from service import errors

DOMAIN = "anther"
_DETAILS_KEY = "grpc-status-details-bin"
_INTERNAL_TEXT = "internal error; the trace is in the server's log"
# A status travels in HTTP/2 headers, of which clients take 8 KiB; what a client sent comes back within them.
_MESSAGE_LENGTH, _FACT_LENGTH = 300, 120

# An error's own class decides, then the nearest class above it.
CODES: dict[type[AntherError], grpc.StatusCode] = {
    bundle_errors.ImageRefused: grpc.StatusCode.INVALID_ARGUMENT,
    bundle_errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    bundle_errors.VersionNotFound: grpc.StatusCode.NOT_FOUND,
    bundle_errors.BundleRefused: grpc.StatusCode.UNAVAILABLE,
    bundle_errors.NoEarlierVersion: grpc.StatusCode.FAILED_PRECONDITION,
    bundle_errors.NotPublished: grpc.StatusCode.FAILED_PRECONDITION,
    bundle_errors.PolicyNotWritable: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.NoModelReady: grpc.StatusCode.UNAVAILABLE,
    errors.NoEvidence: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CanaryNotFound: grpc.StatusCode.NOT_FOUND,
    errors.ControlDisabled: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    errors.DeviceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.RuntimeMissing: grpc.StatusCode.UNAVAILABLE,
    errors.RuntimeConflict: grpc.StatusCode.UNAVAILABLE,
    errors.PortUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.WorkerFailed: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True)
class Status:
    """What a failed call answers with, or an item of a stream."""

    code: grpc.StatusCode
    reason: str
    message: str
    facts: dict[str, str]
    retry_after_s: float | None
    trailing_metadata: tuple[tuple[str, bytes], ...]


def status_of(error: BaseException) -> Status:
    """The status for any exception; one that is not ours becomes INTERNAL with a fixed text."""
    if not isinstance(error, AntherError):
        return _status(grpc.StatusCode.INTERNAL, "INTERNAL", _INTERNAL_TEXT, {})
    code = next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)
    retry = error.retry_after_s if isinstance(error, errors.QueueFull) else None
    facts = {name: _clipped(value, _FACT_LENGTH) for name, value in error.facts.items()}
    return _status(code, reason_of(type(error)), _clipped(str(error), _MESSAGE_LENGTH), facts, retry)


def _status(
    code: grpc.StatusCode, reason: str, message: str, facts: dict[str, str], retry_after_s: float | None = None
) -> Status:
    details = [_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts))]
    if retry_after_s is not None:
        fraction, seconds = math.modf(retry_after_s)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(fraction * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    whole = status_pb2.Status(code=code.value[0], message=message, details=details)
    return Status(code, reason, message, facts, retry_after_s, ((_DETAILS_KEY, whole.SerializeToString()),))


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
