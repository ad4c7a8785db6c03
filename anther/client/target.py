"""Targets, as gRPC names them: HOST:PORT, or a name with a scheme such as `unix:` and `dns:`."""

import ipaddress
import re

from anther.errors import AntherError

_OF_GRPC = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")
_HOST_PORT = re.compile(r"(?:\[[^\[\]\s]+\]|[^:/\[\]\s]+):(\d{1,5})")
_SCHEME = re.compile(r"dns:(?:///)?|ipv[46]:")
_MAX_PORT = 65_535


class TargetMalformed(AntherError, ValueError):
    def __init__(self, target: str) -> None:
        super().__init__(f"the target is '{target}'; expected HOST:PORT, without http://", target=target)


def check(target: str) -> None:
    """Raises `TargetMalformed` for what no server can be reached at; what has a scheme of gRPC's, gRPC itself reads."""
    found = _HOST_PORT.fullmatch(target)
    if not (found and 1 <= int(found[1]) <= _MAX_PORT) and not target.startswith(_OF_GRPC):
        raise TargetMalformed(target)


def loopback(target: str) -> bool:
    """Whether a target never leaves this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = _SCHEME.sub("", target, count=1)
    if (not host.endswith("]") and host.count(":") == 1) or "]:" in host:
        host = host.rpartition(":")[0]
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
