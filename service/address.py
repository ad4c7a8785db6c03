"""Addresses to listen on: tried before a server takes them, and written as clients write them."""

import socket

from service.errors import PortUnavailable


def shown(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refuse_unusable(host: str, port: int, option: str) -> None:
    """Raises `PortUnavailable` with the system's reason, which gRPC keeps to itself. Port 0 is any free one."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            attempt.bind(place)
    except (OSError, UnicodeError) as exc:
        raise PortUnavailable(shown(host, port), getattr(exc, "strerror", None) or str(exc), option) from exc
