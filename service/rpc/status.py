"""Failures as gRPC statuses, with the details that programs read."""

import math
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from service.edge.failures import Failure, failure_of

DOMAIN = "anther"
_DETAILS_KEY = "grpc-status-details-bin"


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
    """The status for any exception."""
    failure = failure_of(error)
    code = grpc.StatusCode[failure.code]
    metadata = ((_DETAILS_KEY, _details(failure, code).SerializeToString()),)
    return Status(code, failure.reason, failure.message, failure.facts, failure.retry_after_s, metadata)


def _details(failure: Failure, code: grpc.StatusCode) -> status_pb2.Status:
    details = [_packed(error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=failure.facts))]
    if failure.retry_after_s is not None:
        fraction, seconds = math.modf(failure.retry_after_s)
        delay = duration_pb2.Duration(seconds=int(seconds), nanos=int(fraction * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code.value[0], message=failure.message, details=details)


def _packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
