"""Addresses to listen on: tried before a server takes them, reserved for several workers, formatted for clients."""

import ipaddress
import socket
from dataclasses import dataclass

from service.errors import PortUnavailable


def shown(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Ports:
    """`http` is None where HTTP is switched off."""

    http: int | None
    grpc: int
    operations: int


def banner(host: str, ports: Ports, what: str, tls: bool = False) -> str:
    """The line that tells callers where a server listens and what it serves."""
    http = "" if ports.http is None else f"HTTP http{'s' * tls}://{shown(host, ports.http)}, "
    operations = f"operations http://{shown(host, ports.operations)}"
    return f"Anther is ready: {http}gRPC {shown(host, ports.grpc)}, {operations}, {what}"


def refuse_unusable(host: str, port: int, option: str) -> None:
    """Raises `PortUnavailable` with the system's reason, which gRPC keeps to itself. Port 0 is any free one."""
    _bound(host, port, option).close()


def listening(host: str, port: int, option: str, shared: bool = False) -> socket.socket:
    """A socket that listens; `shared` with other processes of this user (SO_REUSEPORT). Raises as `refuse_unusable`."""
    found = _bound(host, port, option, shared=shared)
    try:
        found.listen()
    except OSError as exc:  # another server was quicker
        found.close()
        raise PortUnavailable(shown(host, port), exc.strerror or str(exc), option) from exc
    return found


def reserve(host: str, port: int, option: str) -> socket.socket:
    """A socket that reserves the port without listening, for processes of this user that share it (SO_REUSEPORT).

    Port 0 becomes one number for all of them. Raises as `refuse_unusable`, also where another server has the port.
    """
    refuse_unusable(host, port, option)
    reserved = _bound(host, port, option, shared=True)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else one that does not listen stops nobody
    return reserved


def _bound(host: str, port: int, option: str, *, shared: bool = False) -> socket.socket:
    """With SO_REUSEADDR, for connections of a server that stopped keep its port for a minute (TIME-WAIT)."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            bound.bind(place)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as exc:
        raise PortUnavailable(shown(host, port), getattr(exc, "strerror", None) or str(exc), option) from exc
    return bound


def exposure(host: str, *, tls: bool, known: bool) -> str:
    """In one line, what an address other than this machine's own opens; empty where it opens nothing.

    `known` says that callers show who they are.
    """
    if (tls and known) or _loopback(host):
        return ""
    missing = [name for name, has in (("TLS (--tls-cert)", tls), ("tokens (--tokens)", known)) if not has]
    harm = [what for what, has in (("read what is sent", tls), ("use the service", known)) if not has]
    return f"{host} is open without {' and '.join(missing)}: whoever can reach it may {' and '.join(harm)}"


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
