"""A client with bad manners: HTTP/2 frames over a plain socket, so that it can stop anywhere and read nothing."""

import socket
import struct
from collections import defaultdict
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.faults.victim import CLASSIFY, PATIENCE_S

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: RST instead of FIN


def framed(message: bytes) -> bytes:
    """As gRPC wraps a message: not compressed, its length, itself."""
    return b"\0" + struct.pack(">I", len(message)) + message


class RawClient:
    """One connection. `window` is how much of each answer it is willing to take, in bytes."""

    def __init__(self, port: int, window: int = 65_535) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.local_settings.update({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._http.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._socket.close()

    def open_call(self, path: str = CLASSIFY, content_type: str = "application/grpc", **headers: str) -> int:
        """The number of a new stream whose headers are sent."""
        stream = self._http.get_next_available_stream_id()
        usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
        self._http.send_headers(stream, [*usual.items(), ("content-type", content_type), *headers.items()])
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """At most what the server's window takes, which is 65,535 bytes of a new connection."""
        largest = self._http.max_outbound_frame_size
        for start in range(0, len(data), largest):
            last = start + largest >= len(data)
            self._http.send_data(stream, data[start : start + largest], end_stream=end and last)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, stream: int) -> dict[str, str]:
        """Headers and trailers of a stream that the server ends; {'reset': …} where it resets it."""
        found: dict[int, dict[str, str]] = defaultdict(dict)
        while data := self._socket.recv(65_536):
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found[event.stream_id].update((key.decode(), value.decode()) for key, value in event.headers)
                if isinstance(event, h2.events.StreamReset):
                    found[event.stream_id]["reset"] = str(event.error_code)
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) and event.stream_id == stream:
                    self._flush()
                    return found[stream]
            self._flush()
        raise ConnectionError("the server closed the connection")

    def vanish(self) -> None:
        """As a process that was killed with data on its way: the connection is reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())
