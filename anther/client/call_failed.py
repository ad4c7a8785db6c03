"""What a client is told of a call, or of an image in a stream, that failed; however the server put it."""

import re
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from anther.errors import AntherError
from anther.v1 import classifier_pb2 as pb

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_HTTP_1 = ("connect an http1.x server", "missing selected ALPN")  # in plain text, and under TLS
_TOO_LARGE = re.compile(r"(?<!CLIENT: )Received message larger than max \((\d+) vs\.? (\d+)\)")


class CallFailed(AntherError):
    """The server refused or could not be reached: `code` is gRPC's name, `reason` the server's stable one."""

    def __init__(self, code: str, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, code=code, reason=reason)
        self.code, self.reason, self.message, self.retry_after_s = code, reason, message, retry_after_s

    @property
    def transient(self) -> bool:
        """The same request may succeed later, at the same server or another."""
        return self.code == "UNAVAILABLE" or (self.code == "RESOURCE_EXHAUSTED" and self.retry_after_s is not None)


def from_rpc(error: Any, target: str) -> CallFailed:
    """From the `grpc.RpcError` of a call to `target`, sync or async."""
    details = dict(iter(error.trailing_metadata() or ())).get("grpc-status-details-bin")
    if details is None:
        return _from_grpc(error.code(), error.details() or "", target)
    return _from_details(error.code().name, status_pb2.Status.FromString(details))


def from_item(error: pb.ItemError) -> CallFailed:
    retry_after_s = error.retry_after if error.HasField("retry_after") else None
    return CallFailed(_CODES.get(error.code, "UNKNOWN"), error.reason, error.message, retry_after_s)


def stream_ended(target: str) -> CallFailed:
    """The server ended a stream that should go on."""
    return CallFailed("UNAVAILABLE", "STREAM_ENDED", f"{target} ended the stream early")


def unreadable(error: OSError) -> CallFailed:
    """An image that could not be sent."""
    return CallFailed("INVALID_ARGUMENT", "FILE_UNREADABLE", f"cannot read the file: {error}")


def _from_grpc(code: grpc.StatusCode, message: str, target: str) -> CallFailed:
    """Refused by gRPC itself, before the server's code saw it."""
    too_large = _TOO_LARGE.search(message)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and too_large:
        found, limit = map(int, too_large.groups())
        message = f"the image and its request have {found:,} bytes; at most {limit:,} are allowed"
        return CallFailed("INVALID_ARGUMENT", "IMAGE_TOO_MANY_BYTES", message)
    if code is grpc.StatusCode.UNAVAILABLE:
        message = _out_of_reach(message, target)
    return CallFailed(code.name, code.name, message)


def _out_of_reach(message: str, target: str) -> str:
    if any(sign in message for sign in _HTTP_1):
        return (
            f"no gRPC at {target}: that is an HTTP port; the client needs the gRPC port (8001 by default) ({message})"
        )
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return (
            f"the certificate of the server at {target} is not trusted: it is of no authority that is believed, or has "
            f"expired (--tls-ca) ({message})"
        )
    if "Hostname Verification Check failed" in message:
        return f"the certificate of the server at {target} is for another name (--tls-name) ({message})"
    return f"no server answers at {target} ({message}); {_advice(message)}"


def _advice(message: str) -> str:
    if "WRONG_VERSION_NUMBER" in message:
        return "the one there speaks no TLS"
    if "handshake failed" in message.lower():
        return "the one there and this client do not agree on TLS"
    if "Socket closed" in message or "Connection reset" in message:
        return "one that closes at once may ask for TLS (--tls), or for a client's certificate (--tls-cert)"
    return "start one with `anther serve`"


def _from_details(code: str, status: status_pb2.Status) -> CallFailed:
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        detail.Unpack(info)
    return CallFailed(code, info.reason, status.message, retry_after_s)
