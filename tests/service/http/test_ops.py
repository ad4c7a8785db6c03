"""The operations port: what restarts, routes and scrapes rely on, and what strangers may do to it."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from service.errors import PortUnavailable
from service.http import ops
from service.http.ops import OpsServer

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
    server = OpsServer("127.0.0.1", 0, registry, lambda: facts.live, lambda: facts.ready)
    yield server
    server.close()


def get(server: OpsServer, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(host, server.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path)
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


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/%ff%00", "/" + "x" * 10_000])
def test_other_paths_are_404_and_name_those_that_exist(server: OpsServer, path: str) -> None:
    status, kind, body = get(server, path)
    assert (status, kind) == (404, "application/json")
    assert json.loads(body) == {"paths": ["/metrics", "/livez", "/readyz"]}


@pytest.mark.parametrize("line", [b"\x16\x03\x01 hello\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused(server: OpsServer, line: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(line)
        assert b"Error" in connection.makefile("rb").read()
    assert get(server, "/livez")[0] == 200


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


def test_a_silent_connection_is_closed_after_a_while(server: OpsServer, monkeypatch, capfd) -> None:
    """Each holds a thread; they must not add up."""
    monkeypatch.setattr(ops._Quiet, "timeout", 0.05)
    with connect(server) as connection:
        assert connection.recv(1) == b""
    assert get(server, "/livez")[0] == 200
    assert capfd.readouterr().err == ""


def test_an_error_of_our_own_is_logged(server: OpsServer, caplog, capfd, monkeypatch) -> None:
    monkeypatch.setattr(ops._Quiet, "handle", lambda self: self.nothing)
    with connect(server) as connection:
        assert connection.recv(1) == b""
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert isinstance(record.exc_info[1], AttributeError)


def test_closing_does_not_wait_for_open_connections(facts: Facts) -> None:
    server = OpsServer("127.0.0.1", 0, CollectorRegistry(), lambda: facts.live, lambda: facts.ready)
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
