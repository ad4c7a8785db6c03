"""The operations port: what restarts, routes and scrapes rely on, and what strangers may do to it."""

import contextlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.errors import PortUnavailable
from service.http import ops
from service.http.connections import ConnectionLimits
from service.http.ops import OpsServer
from service.identity.access import Access
from service.identity.tokens import Token, digest

PATIENCE_S = 60


class Facts:
    """What the checks answer; a test changes it."""

    def __init__(self) -> None:
        self.live: dict[str, Any] = {"ok": True, "state": "serving"}
        self.ready: dict[str, Any] = {"ok": True, "state": "serving", "models": {"flowers": 2}, "refused": {}}


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def server(facts: Facts) -> Iterator[OpsServer]:
    registry = CollectorRegistry()
    Counter("anther_requests", "Requests", registry=registry).inc(3)
    server = start(facts, registry)
    yield server
    server.close()


def start(facts: Facts, registry: CollectorRegistry | None = None) -> OpsServer:
    return OpsServer("127.0.0.1", 0, registry or CollectorRegistry(), lambda: facts.live, lambda: facts.ready)


def get(
    server: OpsServer, path: str, method: str = "GET", host: str = "127.0.0.1", headers: dict[str, str] | None = None
) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(host, server.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def connect(server: OpsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)


def test_metrics_are_prometheus_text(server: OpsServer) -> None:
    status, kind, body = get(server, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert b"\nanther_requests_total 3.0\n" in body


@pytest.mark.parametrize(("path", "check"), [("/livez", "live"), ("/readyz", "ready")])
def test_a_check_that_holds_is_200_with_its_facts(server: OpsServer, facts: Facts, path: str, check: str) -> None:
    status, kind, body = get(server, path)
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == getattr(facts, check)


@pytest.mark.parametrize(("path", "check"), [("/livez", "live"), ("/readyz", "ready")])
def test_a_check_that_fails_is_503_with_its_facts(server: OpsServer, facts: Facts, path: str, check: str) -> None:
    setattr(facts, check, {"ok": False, "state": "starting", "refused": {"flowers/3": "torn"}})
    status, _, body = get(server, path)
    assert status == 503
    assert json.loads(body) == getattr(facts, check)


def test_queries_are_ignored_and_head_has_no_body(server: OpsServer) -> None:
    assert get(server, "/readyz?verbose=1")[0] == 200
    assert get(server, "/readyz", "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/%ff%00", "/" + "x" * 5_000])
def test_other_paths_are_404_and_name_those_that_exist(server: OpsServer, path: str) -> None:
    status, kind, body = get(server, path)
    assert (status, kind) == (404, "application/json")
    assert json.loads(body) == {"paths": ["/metrics", "/livez", "/readyz"]}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: " + b"x" * 300_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n", 431),
    ],
)
def test_what_is_no_request_is_refused(server: OpsServer, sent: bytes, status: int) -> None:
    with connect(server) as connection, contextlib.suppress(ConnectionResetError):
        connection.sendall(sent)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == status
    assert get(server, "/livez")[0] == 200


@pytest.mark.parametrize("accepted", ["text/plain;version=zzz", "application/openmetrics-text;version=1.x", "*/*;q=ü"])
def test_a_format_that_nobody_knows_is_answered_with_the_usual_one(server: OpsServer, accepted: str) -> None:
    status, kind, body = get(server, "/metrics", headers={"Accept": accepted})
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert b"\nanther_requests_total 3.0\n" in body


@pytest.mark.parametrize("sent", [b"", b"GET /met", b"GET /metrics HTTP/1.1\r\n\r\n"])
def test_a_reset_connection_is_no_news(server: OpsServer, capfd, caplog, sent: bytes) -> None:
    """Load balancers check ports by connecting and resetting, every few seconds."""
    for _ in range(5):
        connection = connect(server)
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        connection.close()
    assert get(server, "/livez")[0] == 200
    server.close()
    assert capfd.readouterr().err == ""
    assert caplog.records == []


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\n\r\n"])
def test_a_silent_connection_is_closed_after_a_while(server: OpsServer, facts: Facts, monkeypatch, sent: bytes) -> None:
    """Also one whose request never ends, and one between two requests."""
    monkeypatch.setattr(ops, "_LIMITS", ConnectionLimits(64, header_s=0.05, idle_s=0.05))
    with contextlib.closing(start(facts)) as impatient, connect(impatient) as connection:
        connection.sendall(sent)
        answer = connection.makefile("rb").read()
        assert (b" 200 OK" in answer) == sent.endswith(b"\r\n\r\n")


def test_dripping_connections_keep_nobody_out(server: OpsServer) -> None:
    """However many connections are open, a new one is answered: the one that waits longest makes room."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(3 * ops._LIMITS.connections):
            stack.enter_context(connect(server)).sendall(b"G")
        assert get(server, "/metrics")[0] == 200
        held = server._listener.connections
        assert held.evicted >= 2 * ops._LIMITS.connections
        assert threading.active_count() <= before


def test_an_error_of_our_own_is_500_and_logged(server: OpsServer, facts: Facts, caplog) -> None:
    facts.ready = {}
    assert get(server, "/readyz")[0] == 500
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert isinstance(record.exc_info[1], KeyError)


def test_closing_does_not_wait_for_open_connections(facts: Facts) -> None:
    server = start(facts)
    with connect(server), connect(server) as half:
        half.sendall(b"GET /livez HT")
        server.close()
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_a_port_in_use_is_refused_with_the_option_to_change(server: OpsServer, facts: Facts) -> None:
    with pytest.raises(PortUnavailable, match=r"Address already in use.*--ops-port"):
        OpsServer("127.0.0.1", server.port, CollectorRegistry(), lambda: facts.live, lambda: facts.ready)


@pytest.mark.parametrize("host", ["::1", "::"])
def test_ipv6_is_served_too(facts: Facts, host: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = OpsServer(host, 0, CollectorRegistry(), lambda: facts.live, lambda: facts.ready)
    assert get(server, "/livez", host="::1")[0] == 200
    server.close()


def test_metrics_may_be_for_tokens_and_checks_are_for_everybody(facts: Facts) -> None:
    access = Access([Token("scraper", digest("t-1"), ("metrics",)), Token("shop", digest("t-2"), ("classify",))])
    server = OpsServer("127.0.0.1", 0, CollectorRegistry(), lambda: facts.live, lambda: facts.ready, access)
    try:
        ends = {
            header: get(server, "/metrics", headers={"Authorization": header})
            for header in ("", "Bearer t-1", "Bearer t-2", "Bearer t-3")
        }
        assert [status for status, _, _ in ends.values()] == [401, 200, 403, 401]
        assert json.loads(ends["Bearer t-3"][2])["reason"] == "UNAUTHENTICATED"
        assert [get(server, path)[0] for path in ("/livez", "/readyz")] == [200, 200]
    finally:
        server.close()
