"""A connection whose client does nothing more ends, whatever it waits for."""

import asyncio
import gc
import weakref
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.connections import BoundedProtocol, ConnectionLimits, Connections

PATIENCE_S = 60
LIMITS = ConnectionLimits(connections=2, header_s=0.02, idle_s=0.02, stall_s=0.02)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes what is written, and tells its protocol when it has been closed."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        super().__init__({"peername": (address, 5000), "sockname": ("192.0.2.9", 80)})
        self.written = b""
        self.closing = False
        self.protocol: Any = None
        self.ended = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        """What was written is never read, so it stays open."""
        self.closing = True

    def abort(self) -> None:
        self.closing = True
        if not self.ended.is_set():
            self.ended.set()
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def connect(
    connections: Connections,
    application: Any = answers,
    address: str = "192.0.2.1",
    limits: ConnectionLimits = LIMITS,
    keep_alive_s: int = 5,
) -> Transport:
    config = uvicorn.Config(
        application, interface="asgi3", ws="none", lifespan="off", log_config=None, timeout_keep_alive=keep_alive_s
    )
    config.load()
    transport = Transport(address)
    server: dict[str, Any] = {"config": config, "server_state": ServerState(), "app_state": {}}
    transport.protocol = BoundedProtocol(connections, limits, **server)
    transport.protocol.connection_made(transport)
    return transport


@pytest.mark.parametrize("left_before_the_answer", [True, False])
@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_nothing_is_kept_of_a_connection_that_is_lost(
    run, left_before_the_answer: bool, error: Exception | None
) -> None:
    """A timer of an hour would keep all of it in memory."""

    async def test() -> None:
        transport = connect(Connections(2), limits=ConnectionLimits(2, idle_s=3600, stall_s=3600), keep_alive_s=3600)
        transport.is_closing = lambda: False  # what uvloop's transports say once they are lost
        transport.protocol.data_received(REQUEST)
        if not left_before_the_answer:
            await asyncio.sleep(0.01)
        transport.protocol.connection_lost(error)
        await asyncio.sleep(0.01)
        protocol = weakref.ref(transport.protocol)
        transport.protocol = None
        gc.collect()
        assert protocol() is None

    run(test())


@pytest.mark.parametrize(
    "sent", [b"", REQUEST[:-2], REQUEST, b"nonsense\r\n\r\n", REQUEST[:-2] + b"Connection: close\r\n\r\n"]
)
def test_a_silent_client_is_not_waited_for(run, sent: bytes) -> None:
    """Also where it does not read a last response."""

    async def test() -> None:
        connections = Connections(2)
        transport = connect(connections)
        if sent:
            transport.protocol.data_received(sent)
        await asyncio.wait_for(transport.ended.wait(), PATIENCE_S)
        assert connections.none.is_set()

    run(test())


def test_a_client_that_does_not_read_is_not_waited_for(run) -> None:
    async def test() -> None:
        transport = connect(Connections(2), never)
        transport.protocol.data_received(REQUEST)
        transport.protocol.pause_writing()
        await asyncio.wait_for(transport.ended.wait(), PATIENCE_S)

    run(test())


def test_a_request_in_progress_is_waited_for(run) -> None:
    async def test() -> None:
        transport = connect(Connections(2), never)
        transport.protocol.data_received(REQUEST)
        transport.protocol.pause_writing()
        transport.protocol.resume_writing()
        await asyncio.sleep(4 * LIMITS.idle_s)
        assert not transport.ended.is_set()
        transport.abort()

    run(test())


def test_a_body_does_not_count_as_headers_of_the_request_behind_it(run) -> None:
    async def test() -> None:
        transport = connect(Connections(2))
        body = b"x" * 2 * LIMITS.header_bytes
        first = REQUEST.replace(b"GET", b"POST").replace(b"Host: a", b"Host: a\r\nContent-Length: %d" % len(body))
        for data in (
            first + body[:100],
            body[100:] + REQUEST[:5],
            REQUEST[5:] + first + body + REQUEST[:5],
            REQUEST[5:],
        ):
            transport.protocol.data_received(data)
            await asyncio.sleep(0)
        while transport.written.count(b"200 OK") < 4:
            await asyncio.sleep(0)
        assert b"431" not in transport.written
        transport.abort()

    run(test())


def test_the_caller_with_the_most_connections_makes_room(run) -> None:
    async def test() -> None:
        connections = Connections(3)
        crowd = [connect(connections, address="192.0.2.1") for _ in range(2)]
        alone = connect(connections, address="192.0.2.2")
        late = connect(connections, address="192.0.2.3")
        assert [each.ended.is_set() for each in (*crowd, alone, late)] == [True, False, False, False]
        for each in (crowd[1], alone, late):
            each.abort()
        assert connections.none.is_set()

    run(test())


def test_where_all_have_a_request_in_progress_the_new_one_goes(run) -> None:
    async def test() -> None:
        connections = Connections(1)
        busy = connect(connections, never)
        busy.protocol.data_received(REQUEST)
        late = connect(connections)
        assert (busy.ended.is_set(), late.ended.is_set()) == (False, True)
        busy.abort()

    run(test())


async def swallows(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, then answers with how long it was and how many headers came."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    text = b"%d %d" % (size, len(scope["headers"]))
    headers = [(b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMING = {
    "trailers": (b"0\r\n", b"a:\r\n" * 1000),
    "one endless trailer": (b"0\r\nX: ", b"a" * 4000),
    "an endless extension of a chunk": (b"5;", b"a" * 4000),
    "zeros before a chunk's size": (b"", b"0" * 4000),
    "chunks of one byte": (b"", b"1\r\na\r\n" * 1000),
}


@pytest.mark.parametrize("name", FRAMING)
def test_what_comes_beside_a_body_is_bounded(name: str) -> None:
    async def scenario() -> None:
        begin, more = FRAMING[name]
        limits = ConnectionLimits(connections=2)
        transport = connect(Connections(2), swallows, limits=limits)
        transport.protocol.data_received(CHUNKED + begin)
        sent = 0
        while not transport.is_closing():
            transport.protocol.data_received(more)
            sent += len(more)
            assert sent < 3 * limits.header_bytes
            await asyncio.sleep(0)
        transport.abort()

    asyncio.run(scenario())


@pytest.mark.parametrize("together", [True, False])
def test_trailers_are_no_headers(together: bool) -> None:
    async def scenario() -> None:
        transport = connect(Connections(2), swallows, limits=ConnectionLimits(connections=2))
        pieces = [CHUNKED, b"3\r\nabc\r\n", b"0\r\nAuthorization: Bearer x\r\n", b"\r\n"]
        for piece in [b"".join(pieces)] if together else pieces:
            transport.protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert transport.written.endswith(b"3 2")
        transport.abort()

    asyncio.run(scenario())


def test_a_port_without_bodies_refuses_them_unread() -> None:
    async def scenario() -> None:
        transport = connect(Connections(2), limits=ConnectionLimits(connections=2, bodies=False))
        transport.protocol.data_received(CHUNKED)
        assert transport.written.startswith(b"HTTP/1.1 413 ")
        assert transport.is_closing()
        transport.abort()

    asyncio.run(scenario())


def test_two_hosts_are_refused() -> None:
    async def scenario() -> None:
        transport = connect(Connections(2))
        transport.protocol.data_received(REQUEST.replace(b"Host: a\r\n", b"Host: a\r\nHost: b\r\n"))
        assert transport.written.startswith(b"HTTP/1.1 400 ")
        transport.abort()

    asyncio.run(scenario())
