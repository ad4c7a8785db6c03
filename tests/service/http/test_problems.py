"""Every error has a status of HTTP's, and the same words as over gRPC."""

import json

import pytest

from anther.errors import AntherError
from service.edge.failures import failure_of
from service.errors import HeadersTooLarge, MethodNotAllowed, QueueFull
from service.http import problems
from service.rpc.status import status_of
from tests.service.rpc.test_status import LEAVES, bare

NO_FAULT_OF_THE_CLIENT = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"}


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_leaf_has_a_status_of_its_own_meaning(kind: type[AntherError]) -> None:
    failure, grpc = failure_of(bare(kind)), status_of(bare(kind))
    status = problems.status_of(failure)
    assert 400 <= status < 600
    assert status != 500
    found = problems.problem(failure, status)
    assert (found["status"], found["detail"]) == (status, grpc.message)
    assert (found["code"], found["reason"], found["facts"]) == (grpc.code.name, grpc.reason, grpc.facts)
    assert found["title"]


def test_codes_say_whose_fault_it_is() -> None:
    for code, status in problems.STATUSES.items():
        assert (status >= 500) == (code in NO_FAULT_OF_THE_CLIENT | {"INTERNAL"}), code


def test_what_nobody_foresaw_says_nothing_of_itself() -> None:
    failure = failure_of(KeyError("secret"))
    assert problems.status_of(failure) == 500
    assert b"secret" not in problems.body(failure, 500)


def test_headers_say_when_to_come_back_and_what_is_allowed() -> None:
    assert problems.headers(failure_of(QueueFull(9, 9, "requests", 0.25)), 429) == [(b"retry-after", b"1")]
    assert problems.headers(failure_of(QueueFull(9, 9, "requests", 1.25)), 429) == [(b"retry-after", b"2")]
    assert problems.headers(failure_of(MethodNotAllowed("PUT", "GET, HEAD")), 405) == [(b"allow", b"GET, HEAD")]


def test_what_is_no_request_is_answered_in_one_piece() -> None:
    head, _, body = problems.raw_response(HeadersTooLarge(10, 5)).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert {b"connection: close", b"content-length: %d" % len(body)} <= set(lines)
    assert json.loads(body)["reason"] == "HEADERS_TOO_LARGE"
