"""Who asks, by which protocol, and until when: what a call brings beside its request."""

import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # the supervisor of several workers tells callers apart, and holds no NumPy
    from service.core.answers import AnyAnswer

Wire = Literal["grpc", "http"]
_IPV6_SITE = 64  # bits of an IPv6 address that are one site's; the rest it chooses itself


@dataclass(frozen=True, slots=True)
class Caller:
    """`key` tells callers apart where they take turns. `name` is what a metric may show; it is empty for a stranger.

    `models` are those that the caller may ask, `scopes` what for; None is all of them.
    """

    key: str
    name: str = ""
    models: frozenset[str] | None = None
    scopes: frozenset[str] | None = None

    def may_ask(self, model: str) -> bool:
        return self.models is None or model in self.models


class Trace(Protocol):
    """A request's span. `trace_id` is empty where nobody records it."""

    trace_id: str

    def answered(self, answer: "AnyAnswer") -> None:
        """Draw the stages of one answer of the request."""
        ...

    def ended(self, where: tuple[str, str], code: str, reason: str) -> None:
        """End the span. `where` is the model's name and version, empty where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """`deadline` in seconds of `time.monotonic`; None where the caller set none.

    `traceparent` is the W3C header with the caller's own span; `trace` is the span that began for the request.
    """

    protocol: Wire
    caller: Caller
    deadline: float | None = None
    traceparent: str = ""
    trace: Trace | None = None


@functools.lru_cache(maxsize=4096)
def caller_at(address: str) -> Caller:
    """The caller at an IP address, or at a socket's path. All addresses of an IPv6 site are one caller."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Caller(address)
    if isinstance(found, ipaddress.IPv4Address):
        return Caller(address)
    if found.ipv4_mapped is not None:
        return Caller(str(found.ipv4_mapped))
    return Caller(str(ipaddress.ip_network((found, _IPV6_SITE), strict=False)))
