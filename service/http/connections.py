"""Connections of an HTTP port within limits: how many there are, and how long and large a request's headers may be.

uvicorn limits neither. A connection without a request in progress makes room for a new one, the one that waits longest
first, of the caller that has the most: so nobody can keep others out by connecting.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.core.call import caller_at
from service.errors import HeadersTooLarge, RequestMalformed, RequestTooLarge, ServiceError
from service.http.problems import raw_response

_PIPELINED = 8  # requests on a connection behind the one in progress
_HEADERS = 100


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    connections: int
    header_bytes: int = 16 * 1024  # of a request's first line and headers
    header_s: float = 10.0  # for a connection's first request, and for the rest of one that has begun
    idle_s: float = 75.0  # between two requests
    stall_s: float = 60.0  # for a client that reads nothing of its responses
    bodies: bool = True  # whether requests may have one


class Connections:
    """Those of one port. Each is waiting, for a request or for the rest of its headers, or it has one in progress."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._callers: dict[str, set[BoundedProtocol]] = {}
        self._waiting: dict[str, dict[BoundedProtocol, None]] = {}  # the one that waits longest first
        self._count = 0
        self.evicted = 0
        self.none = asyncio.Event()
        self.none.set()

    def open(self, connection: "BoundedProtocol") -> None:
        """Where there are too many, one is closed, which may be this one."""
        self._callers.setdefault(connection.caller, set()).add(connection)
        self._count += 1
        self.none.clear()
        self.waits(connection)
        if self._count > self._limit:
            self._evict(connection)

    def waits(self, connection: "BoundedProtocol") -> None:
        self.works(connection)
        if connection in self._callers.get(connection.caller, ()):  # and is not being closed
            self._waiting.setdefault(connection.caller, {})[connection] = None

    def works(self, connection: "BoundedProtocol") -> None:
        """It has a request in progress."""
        waiting = self._waiting.get(connection.caller, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(connection.caller, None)

    def closed(self, connection: "BoundedProtocol") -> None:
        """Also for one that was closed here."""
        mine = self._callers.get(connection.caller, set())
        if connection not in mine:
            return
        self.works(connection)
        mine.discard(connection)
        self._count -= 1
        if not mine:
            del self._callers[connection.caller]
        if not self._count:
            self.none.set()

    def _evict(self, newest: "BoundedProtocol") -> None:
        most = max(self._callers, key=lambda caller: len(self._callers[caller]))
        evicted = next(iter(self._waiting.get(most, ())), newest)
        self.closed(evicted)
        self.evicted += 1
        evicted.transport.abort()


class Framing:
    """What comes with a body beside it: sizes and extensions of chunks, and trailers, which the parser keeps.

    Between two pieces of the body, and behind the last, as much may come as a request's headers have; over the whole
    body that much and a quarter of the body's length.
    """

    __slots__ = ("_body", "_limit", "_piece", "_since", "_sum")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._piece = 0  # bytes of the body in what was received last
        self._body = self._sum = self._since = 0

    def body(self, size: int) -> None:
        self._piece += size

    def received(self, size: int) -> bool:
        """Whether it is too much, after the parser has seen that many bytes more."""
        piece, self._piece = self._piece, 0
        self._body += piece
        self._sum += size - piece
        self._since = 0 if piece else self._since + size
        return self._since > self._limit or self._sum > self._limit + self._body // 4


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, connections: Connections, limits: ConnectionLimits, **of_server: Any) -> None:
        super().__init__(**of_server)
        self._connections, self._limits = connections, limits
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._header_bytes = 0  # of the request that has begun
        self._in_body = False
        self._framing = Framing(limits.header_bytes)
        self._in_headers, self._completed = True, False  # the latter: of a request within the data just received
        self.caller = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.caller = caller_at(self.client[0]).key if self.client else ""
        self._expect(self._limits.header_s)
        self._connections.open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self)
        _cancel(self._timer)
        _cancel(self._stalled)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn keeps a reset connection in memory until then

    def data_received(self, data: bytes) -> None:
        """The parser keeps what has come of a header, however long it is, and tells of it when it is whole."""
        waited, in_body, self._completed = self._in_headers, self._in_body, False
        super().data_received(data)
        if in_body and self._in_body and not self._completed and self._framing.received(len(data)):
            self._refuse(self._too_large())
        if waited and self._in_headers and not self._completed:
            self._header_bytes += len(data)
            if self._header_bytes > self._limits.header_bytes:
                self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0
        self._expect(self._limits.header_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are dropped: none of what they may not say (RFC 9110, 6.5.1) is then heard from them."""
        if self._in_headers:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._framing.body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._in_headers, self._completed, self._in_body = False, True, True
        self._framing = Framing(self._limits.header_bytes)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self.transport.is_closing():
            return
        if size > self._limits.header_bytes or len(self.headers) > _HEADERS:
            self._refuse(self._too_large())
            return
        names = [name for name, _ in self.headers]
        if names.count(b"host") > 1:
            self._refuse(RequestMalformed())
            return
        if not self._limits.bodies and has_body(self.headers):
            self._refuse(RequestTooLarge(0))
            return
        if len(self.pipeline) >= _PIPELINED:
            self.transport.close()
            return
        _cancel(self._timer)
        self._connections.works(self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._busy:
            closing = self.transport.is_closing()  # once the client has read the rest
            self._expect(self._limits.stall_s if closing else self._limits.idle_s)
            self._connections.waits(self)

    def pause_writing(self) -> None:
        """Its client reads more slowly than it is answered, or not at all."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._stalled)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        self._refuse(RequestMalformed())

    def _too_large(self) -> ServiceError:
        return HeadersTooLarge(self._limits.header_bytes, _HEADERS)

    def _refuse(self, error: ServiceError) -> None:
        """Not in the middle of another response."""
        if self.transport.is_closing():
            return
        if not self._busy:
            self.transport.write(raw_response(error))
        self.transport.close()
        self._expect(self._limits.header_s)

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self, seconds: float) -> None:
        """End the connection unless it has a request in progress by then."""
        _cancel(self._timer)
        self._timer = self.loop.call_later(seconds, self._timeout, seconds)

    def _timeout(self, seconds: float) -> None:
        if self._busy and not self.transport.is_closing():
            self._expect(seconds)
        else:
            self.transport.abort()


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these has one."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in headers
    )


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
