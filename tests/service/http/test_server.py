"""The HTTP port: its connections within limits, its callers, and an end that loses nothing that it accepted."""

import contextlib
import socket
import struct
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.edge import arrivals
from service.http import exchange
from tests.service.http.conftest import PATIENCE_S, Web

ORIGIN = "https://a.example"


@pytest.fixture
def web(start_web) -> Web:
    return start_web()


def classify(picture: bytes, more: bytes = b"") -> bytes:
    """A whole request, as bytes."""
    return b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (len(picture), more, picture)


def plug(web: Web) -> socket.socket:
    return socket.create_connection(("127.0.0.1", web.server.port), PATIENCE_S)


def ended(connection: socket.socket) -> bool:
    """Whether the server has closed it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def ask_until_refused(web: Web, picture: bytes, began: threading.Semaphore) -> Counter[tuple[int, str | None]]:
    """Over one connection, which a client keeps as long as the server does."""
    ends: Counter[tuple[int, str | None]] = Counter()
    with contextlib.closing(web.connect()) as connection:
        while not any(status != 200 for status, _ in ends):
            connection.request("POST", "/v1/classify", picture)
            answer = connection.getresponse()
            answer.read()
            ends[answer.status, answer.headers["Connection"]] += 1
            began.release()
    return ends


def test_a_server_that_stops_answers_what_it_accepted_and_sends_the_rest_away(web, run, pictures) -> None:
    began = threading.Semaphore(0)
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_until_refused, web, pictures["daisy"], began) for _ in range(4)]
        for _ in range(12):
            assert began.acquire(timeout=PATIENCE_S)
        web.edge.classifier.drain()
        run(web.server.stop(PATIENCE_S))
        ends = sum((each.result(PATIENCE_S) for each in asking), Counter())
    assert ends.keys() == {(200, None), (503, "close")}
    assert ends[503, "close"] == 4
    answered = {"protocol": "http", "method": "Classify", "code": "OK"}
    assert web.sample("anther_requests_total", **answered) == ends[200, None]
    with pytest.raises(ConnectionRefusedError):
        plug(web)


def test_what_is_accepted_is_answered_though_the_server_stops_meanwhile(web, run, pictures, eventually) -> None:
    with ThreadPoolExecutor(2) as pool, web.edge.held():
        asking = web.edge.occupied(lambda: pool.submit(web.ask, "POST", "/v1/classify", pictures["roses"]))
        web.edge.classifier.drain()
        stopping = pool.submit(run, web.server.stop(PATIENCE_S))
        assert web.ask("POST", "/v1/classify", pictures["roses"]).status == 503
        web.edge.engine.gate.set()
        assert asking.result(PATIENCE_S).json()["predictions"][0]["label"] == "roses"
        stopping.result(PATIENCE_S)


def test_what_is_not_answered_in_time_is_refused(web, run, pictures) -> None:
    with ThreadPoolExecutor(1) as pool, web.edge.held():
        asking = web.edge.occupied(lambda: pool.submit(web.ask, "POST", "/v1/classify", pictures["roses"]))
        run(web.server.stop(0))
        answer = asking.result(PATIENCE_S)
    assert (answer.status, answer.json()["reason"]) == (503, "DRAINING")


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_leaves_cancels_its_work(web, pictures, eventually, how: str) -> None:
    before = web.edge.engine.runs
    with web.edge.held():
        for _ in range(3):
            leaving = plug(web)
            leaving.sendall(classify(pictures["daisy"]))
            eventually(lambda: web.edge.lanes.waiting + web.edge.lanes.running > 0)
            if how == "reset":
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.close()
        eventually(lambda: web.sample("anther_requests_total", protocol="http", code="CANCELLED") == 3)
        assert web.sample("anther_rejected_total", reason="CANCELLED") == 3
    eventually(lambda: web.edge.lanes.waiting + web.edge.lanes.running == 0)
    assert web.edge.engine.runs <= before + 1


def test_requests_of_a_connection_are_answered_in_their_order(web, pictures) -> None:
    """Sent together, before any answer is read."""
    labels = ["daisy", "roses", "tulips"]
    with plug(web) as connection:
        connection.sendall(b"".join(classify(pictures[label]) for label in labels[:2]))
        connection.sendall(classify(pictures[labels[2]], b"Connection: close\r\n"))
        answers = connection.makefile("rb").read()
    found = sorted(labels, key=lambda label: answers.index(b'"predictions": [{"label": "%s"' % label.encode()))
    assert found == labels
    assert answers.count(b"HTTP/1.1 200 OK") == 3


def test_a_response_before_the_end_of_its_request_can_be_read(start_web) -> None:
    """A client that only then looks for it has sent its whole body meanwhile."""
    web = start_web(max_image_bytes=1000)
    with plug(web) as connection:
        connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        connection.sendall(b"x" * 300_000)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert b"IMAGE_TOO_MANY_BYTES" in answer


def test_a_client_that_waits_for_it_is_told_to_go_on(web, pictures) -> None:
    head, _, body = classify(pictures["daisy"], b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with plug(web) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_idle_connections_make_room_and_nobody_is_kept_out(start_web, pictures, eventually) -> None:
    """The one that waits longest goes first; one with a request in progress stays."""
    web = start_web(http_connections=8)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(plug(web)) for _ in range(8)]
        busy = stack.enter_context(plug(web))
        with web.edge.held():
            web.edge.occupied(lambda: busy.sendall(classify(pictures["daisy"])))
            newer = [stack.enter_context(plug(web)) for _ in range(16)]
            assert all(map(ended, idle))
        assert busy.recv(100).startswith(b"HTTP/1.1 200 OK")
        newer[-1].sendall(classify(pictures["daisy"]))
        assert newer[-1].recv(100).startswith(b"HTTP/1.1 200 OK")


def test_too_many_requests_behind_another_end_the_connection(web, pictures) -> None:
    with plug(web) as connection, web.edge.held(), contextlib.suppress(ConnectionError):
        connection.sendall(classify(pictures["daisy"]) + b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        assert connection.recv(1) == b""


def test_pages_of_other_origins_are_not_let_in_unless_they_are_named(start_web, web) -> None:
    asked = {"Origin": ORIGIN, "Access_Control_Request_Method": "POST"}
    assert web.ask("OPTIONS", "/v1/classify", **asked).status == 405
    assert web.ask("GET", "/v1/models", Origin=ORIGIN).headers["Access-Control-Allow-Origin"] is None
    named = start_web(cors=f"{ORIGIN} https://b.example")
    assert named.ask("OPTIONS", "/v1/classify", **asked).status == 200
    assert named.ask("GET", "/v1/models", Origin=ORIGIN).headers["Access-Control-Allow-Origin"] == ORIGIN
    assert named.ask("GET", "/none", Origin=ORIGIN).headers["Access-Control-Allow-Origin"] == ORIGIN
    other = named.ask("GET", "/v1/models", Origin="https://c.example")
    assert other.headers["Access-Control-Allow-Origin"] is None


def begin_upload(stack: contextlib.ExitStack, web: Web, size: int, sent: int = 10) -> socket.socket:
    connection = stack.enter_context(plug(web))
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    connection.sendall(head + b"x" * sent)
    return connection


@pytest.mark.parametrize("limit", ["silence", "whole"])
def test_a_body_that_does_not_arrive_is_not_waited_for(start_web, monkeypatch, limit: str) -> None:
    if limit == "silence":
        monkeypatch.setattr(exchange, "_SILENCE_S", 0.02)
    monkeypatch.setattr(arrivals, "_TICK_S", 0.02)
    web = start_web(arrival_s=60.0 if limit == "silence" else 0.02)
    with contextlib.ExitStack() as stack:
        answer = begin_upload(stack, web, 1000).makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"reason": "ARRIVED_TOO_SLOWLY"' in answer
    assert web.sample("anther_requests_total", protocol="http", code="DEADLINE_EXCEEDED") == 1


def test_bodies_on_their_way_in_have_a_budget_and_whole_ones_are_answered_meanwhile(start_web, pictures) -> None:
    """What has no room is read only if it is there already; else it is told to come back."""
    picture = pictures["daisy"]
    web = start_web(arrival_bytes=2 * len(picture))
    with contextlib.ExitStack() as stack:
        begin_upload(stack, web, 2 * len(picture))
        answer = begin_upload(stack, web, 2 * len(picture)).makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b'"reason": "ARRIVALS_FULL"' in answer
        assert b"\r\nretry-after: 1\r\n" in answer
        assert web.ask("POST", "/v1/classify", picture).status == 200


def test_a_client_that_leaves_before_the_end_of_its_body_is_counted(web, eventually) -> None:
    with contextlib.ExitStack() as stack:
        begin_upload(stack, web, 1000)
    eventually(lambda: web.sample("anther_rejected_total", reason="CANCELLED") == 1)
