"""An address that cannot be listened on is refused in one sentence, with the system's reason; one that can is kept."""

import socket

import pytest

from service.errors import PortUnavailable
from service.system.address import Ports, banner, listening, refuse_unusable, reserve, shown


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80"), ("::", "[::]:80"), ("name", "name:80")]
)
def test_an_ipv6_host_is_written_in_brackets(host: str, expected: str) -> None:
    assert shown(host, 80) == expected


def test_a_free_port_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    refuse_unusable("127.0.0.1", port, "--grpc-port")
    refuse_unusable("127.0.0.1", 0, "--grpc-port")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_in_use_is_refused_with_the_option_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortUnavailable) as refusal:
            refuse_unusable("127.0.0.1", port, "--ops-port")
    assert str(refusal.value) == (
        f"cannot listen on 127.0.0.1:{port} (Address already in use); "
        "choose another port with --ops-port or address with --host"
    )
    assert refusal.value.facts == {"address": f"127.0.0.1:{port}", "reason": "Address already in use"}


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),  # RFC 5737: nobody's
        ("x" * 64, "label"),
        ("no such host", "not known"),
    ],
)
def test_a_host_that_is_not_ours_is_refused(host: str, reason: str) -> None:
    with pytest.raises(PortUnavailable, match=reason):
        refuse_unusable(host, 0, "--grpc-port")


def listener(port: int, **options: bool) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), **options)


def test_a_reserved_port_takes_those_who_share_it_and_nobody_else() -> None:
    with reserve("127.0.0.1", 0, "--grpc-port") as reserved:
        port = reserved.getsockname()[1]
        assert port > 0
        listener(port, reuse_port=True).close()
        with pytest.raises(OSError, match="Address already in use"):
            listener(port)


def test_two_may_share_a_reserved_port() -> None:
    with reserve("127.0.0.1", 0, "--grpc-port") as reserved:
        port = reserved.getsockname()[1]
        with listener(port, reuse_port=True), listener(port, reuse_port=True), pytest.raises(PortUnavailable):
            refuse_unusable("127.0.0.1", port, "--grpc-port")


def test_a_reservation_takes_no_connections() -> None:
    """It would keep callers waiting whom nobody answers."""
    with (
        reserve("127.0.0.1", 0, "--grpc-port") as reserved,
        listener(reserved.getsockname()[1], reuse_port=True) as one,
    ):
        for _ in range(20):
            with socket.create_connection(one.getsockname()):
                one.accept()[0].close()


def test_of_two_who_take_a_port_at_once_the_later_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both may bind it, but only one may listen."""
    with socket.socket() as quicker:
        quicker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        quicker.bind(("127.0.0.1", 0))
        listen = socket.socket.listen
        monkeypatch.setattr(socket.socket, "listen", lambda late: (listen(quicker), listen(late)))
        with pytest.raises(PortUnavailable, match=r"already in use.*--ops-port"):
            listening("127.0.0.1", quicker.getsockname()[1], "--ops-port")


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_cannot_be_reserved(reuse: bool) -> None:
    """Also where its owner would share it: another server's workers."""
    with listener(0, reuse_port=reuse) as server, pytest.raises(PortUnavailable, match=r"already in use.*--grpc-port"):
        reserve("127.0.0.1", server.getsockname()[1], "--grpc-port")


def test_two_cannot_reserve_a_port() -> None:
    with reserve("127.0.0.1", 0, "--grpc-port") as first, pytest.raises(PortUnavailable):
        reserve("127.0.0.1", first.getsockname()[1], "--grpc-port")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_server_takes_the_port_of_one_that_closed_connections(before: bool, after: bool) -> None:
    """They stay in TIME-WAIT for a minute, whether it had one process or shared the port among several."""
    with listening("127.0.0.1", 0, "--http-port", before) as server:
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()
            assert client.recv(1) == b""
    if not after:
        listening("127.0.0.1", port, "--http-port").close()
        return
    with (
        reserve("127.0.0.1", port, "--http-port"),
        listening("127.0.0.1", port, "--http-port", shared=True),
        pytest.raises(PortUnavailable),
    ):
        reserve("127.0.0.1", port, "--http-port")


def test_the_banner_has_addresses_that_clients_take() -> None:
    assert banner("::1", Ports(8000, 8001, 8002), "flowers/1") == (
        "Anther is ready: HTTP http://[::1]:8000, gRPC [::1]:8001, operations http://[::1]:8002, flowers/1"
    )
    assert banner("::1", Ports(None, 8001, 8002), "flowers/1") == (
        "Anther is ready: gRPC [::1]:8001, operations http://[::1]:8002, flowers/1"
    )
    assert "HTTP https://[::1]:1, gRPC [::1]:2, operations http:" in banner("::1", Ports(1, 2, 3), "", tls=True)
