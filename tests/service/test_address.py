"""An address that cannot be listened on is refused in one sentence, with the system's reason."""

import socket

import pytest

from service.address import refuse_unusable, shown
from service.errors import PortUnavailable


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
