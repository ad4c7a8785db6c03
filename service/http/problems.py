"""Failures as `application/problem+json` (RFC 9457): the one table from codes to HTTP statuses."""

import http
import json
import math
from typing import Any

from anther.errors import reason_of
from bundle import errors as bundle_errors
from service import errors
from service.edge.failures import Code, Failure, failure_of

STATUSES: dict[Code, int] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

# Where HTTP tells apart what has one code.
_OF_REASONS: dict[str, int] = {
    reason_of(bundle_errors.ImageTooManyBytes): 413,
    reason_of(bundle_errors.ImageTooManyPixels): 413,
    reason_of(bundle_errors.ImageFormatRefused): 415,
    reason_of(errors.MethodNotAllowed): 405,
    reason_of(errors.HeadersTooLarge): 431,
    reason_of(errors.ArrivedTooSlowly): 408,
    reason_of(errors.RequestTooLarge): 413,
    reason_of(errors.EncodingRefused): 415,
}

CONTENT_TYPE = b"application/problem+json"


def status_of(failure: Failure) -> int:
    return _OF_REASONS.get(failure.reason) or STATUSES[failure.code]


def problem(failure: Failure, status: int) -> dict[str, Any]:
    """`code`, `reason` and `facts` are what gRPC's clients get, too."""
    found: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": failure.message,
        "code": failure.code,
        "reason": failure.reason,
        "facts": failure.facts,
    }
    if failure.retry_after_s is not None:
        found["retry_after"] = failure.retry_after_s
    return found


def headers(failure: Failure, status: int) -> list[tuple[bytes, bytes]]:
    """Beside the content's type and length."""
    found = []
    if failure.retry_after_s is not None:
        found.append((b"retry-after", b"%d" % max(1, math.ceil(failure.retry_after_s))))
    if status == 405:
        found.append((b"allow", failure.facts["allowed"].encode()))
    if status == 401:
        found.append((b"www-authenticate", b"Bearer"))
    return found


def body(failure: Failure, status: int) -> bytes:
    return json.dumps(problem(failure, status)).encode() + b"\n"


def raw_response(error: BaseException) -> bytes:
    """A whole response, after which the connection is closed."""
    failure = failure_of(error)
    status = status_of(failure)
    text = body(failure, status)
    lines = [
        b"HTTP/1.1 %d %s" % (status, http.HTTPStatus(status).phrase.encode()),
        b"content-type: " + CONTENT_TYPE,
        *(b"%s: %s" % header for header in headers(failure, status)),
        b"content-length: %d" % len(text),
        b"x-content-type-options: nosniff",
        b"connection: close",
    ]
    return b"\r\n".join([*lines, b"", text])
