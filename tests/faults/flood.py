"""HTTP/2 frames by the thousand: what an attacker writes who keeps no library's manners."""

import contextlib
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field

import hpack

from tests.faults.victim import CLASSIFY, PATIENCE_S

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_CANCEL = struct.pack(">I", 8)
_INITIAL_WINDOW = 4  # the setting
_MAX_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers_of(path: str = CLASSIFY) -> bytes:
    """A block that means the same in every place: nothing in it refers to what was sent before."""
    usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
    fields = [*usual.items(), ("content-type", "application/grpc")]
    return bytes(hpack.Encoder().encode([(name, value, True) for name, value in fields], huffman=False))


OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")
PINGED = frame(PING, 0, 0, bytes(8))


def opened(stream: int, path: str = CLASSIFY) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, headers_of(path))


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _CANCEL)


def connected(port: int, timeout: float = PATIENCE_S, opening: bytes = OPENING) -> socket.socket:
    """A connection on which HTTP/2 has begun, from an address that honest callers do not have."""
    connection = socket.create_connection(("127.0.0.1", port), timeout, source_address=("127.0.0.2", 0))
    with contextlib.suppress(OSError):  # a server that turns it away may have closed it
        connection.sendall(opening)
    return connection


@dataclass
class Upload:
    """One call over a connection of its own, sent as far as the server's windows allow."""

    connection: socket.socket
    unsent: memoryview
    stream_window: int = 65_535
    connection_window: int = 65_535
    stream: int = 1
    window_of_new: int = 65_535  # as the server's settings say
    ended: bool = False  # the server has answered, reset the stream or closed
    trailers: bytes = b""
    _received: bytes = b""
    _outgoing: bytes = field(default=b"")

    def begin_another(self, body: bytes) -> None:
        """Leave the call as it is, and begin the next one on the same connection."""
        self.stream += 2
        self._outgoing += opened(self.stream)
        self.unsent, self.stream_window, self.ended = memoryview(body), self.window_of_new, False

    def send(self) -> None:
        while True:
            if not self._outgoing:
                size = min(self.stream_window, self.connection_window, _MAX_FRAME, len(self.unsent))
                if size <= 0:
                    return
                self._outgoing = frame(DATA, 0, self.stream, bytes(self.unsent[:size]))
                self.unsent = self.unsent[size:]
                self.stream_window -= size
                self.connection_window -= size
            try:
                self._outgoing = self._outgoing[self.connection.send(self._outgoing) :]
            except BlockingIOError:
                return

    def receive(self) -> None:
        try:
            data = self.connection.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return
        self._received += data
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9 : 9 + length], self._received[9 + length :]
            self._heed(kind, flags, stream, payload)

    def _heed(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream == 0:
            self.connection_window += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE and stream == self.stream:
            self.stream_window += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == _INITIAL_WINDOW:
                    self.stream_window += value - self.window_of_new
                    self.window_of_new = value
            self.connection.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.connection.sendall(frame(PING, ACK, 0, payload))
        elif kind in (HEADERS, RST_STREAM, GOAWAY):
            self.trailers += payload
            self.ended = self.ended or kind != HEADERS or bool(flags & END_STREAM)


def uploads(port: int, count: int, claimed: int, sent: int, path: str = CLASSIFY) -> list[Upload]:
    """Connections that each announce a message of `claimed` bytes, of which they mean to send `sent`."""
    body = b"\0" + struct.pack(">I", claimed) + bytes(sent)
    begun = []
    for _ in range(count):
        connection = connected(port)
        connection.sendall(opened(1, path))
        connection.setblocking(False)
        begun.append(Upload(connection, memoryview(body)))
    return begun


def push(begun: list[Upload], seconds: float, quiet_s: float = 1.0) -> None:
    """Send what the server takes, until it has taken nothing for `quiet_s`, at the latest after `seconds`."""
    ends, last, before = time.monotonic() + seconds, time.monotonic(), -1
    with selectors.DefaultSelector() as selector:
        for upload in begun:
            selector.register(upload.connection, selectors.EVENT_READ, upload)
        while selector.get_map() and time.monotonic() < min(ends, last + quiet_s):
            for upload in begun:
                if not upload.ended:
                    upload.send()
            for key, _ in selector.select(0.01):
                key.data.receive()
                if key.data.ended:
                    selector.unregister(key.fileobj)
            left = sum(len(upload.unsent) for upload in begun)
            if left != before:
                before, last = left, time.monotonic()


def answer_politely(connections: list[socket.socket], seconds: float) -> int:
    """Acknowledge settings and pings, and nothing else. Returns how many the server has not closed."""
    ends = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, Upload(connection, memoryview(b"")))
        while selector.get_map() and (now := time.monotonic()) < ends:
            for key, _ in selector.select(ends - now):
                with contextlib.suppress(OSError):
                    key.data.receive()
                if key.data.ended:
                    selector.unregister(key.fileobj)
        return len(selector.get_map())


def refused(connection: socket.socket, streams: int, path: str = CLASSIFY) -> int:
    """How many of so many streams, opened at once, the server resets; it answers pings before it writes the resets."""
    connection.sendall(b"".join(opened(number, path) for number in range(1, 2 * streams, 2)) + PINGED)
    received, resets, answered = b"", 0, 0
    while answered < 3:
        received += connection.recv(65_536)
        while len(received) >= 9 and len(received) >= 9 + (length := int.from_bytes(received[:3], "big")):
            kind, flags, _ = struct.unpack(">BBI", received[3:9])
            received = received[9 + length :]
            resets += kind == RST_STREAM
            if kind == PING and flags & ACK:
                answered += 1
                connection.sendall(PINGED)
    return resets
