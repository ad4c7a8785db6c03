"""Attacks on the HTTP ports: connections that drip, say nothing, or never end what they send."""

import contextlib
import http.client
import socket
import statistics
import time
from collections import Counter
from typing import Any

from tests.faults import flood
from tests.faults.victim import PATIENCE_S, Asking, Victim

Figures = dict[str, Any]


class Drips:
    """Connections to a port that send a byte of `text` at each `drip`, and connect anew where they are closed."""

    def __init__(self, port: int, count: int, text: bytes) -> None:
        self._port, self._text, self._sent = port, text, 0
        self.closed = 0
        self.connections = [self._connect() for _ in range(count)]

    def drip(self) -> None:
        byte = self._text[self._sent % len(self._text) :][:1]
        self._sent += 1
        for number, connection in enumerate(self.connections):
            try:
                connection.send(byte)
            except OSError:
                connection.close()
                self.closed += 1
                self.connections[number] = self._connect()

    def close(self) -> None:
        for connection in self.connections:
            connection.close()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), PATIENCE_S)


def dripping(victim: Victim, picture: bytes, connections: int = 2000, drips: int = 10) -> Figures:
    """Connections to the operations port that send a request byte by byte; meanwhile it is scraped."""
    before = victim.vitals()
    quiet = [scrape_s(victim) for _ in range(20)]
    with contextlib.closing(Drips(operations_port(victim), connections, b"GET /metrics HTTP/1.1\r\nA: ")) as hostile:
        scrapes = []
        for _ in range(drips):
            hostile.drip()
            scrapes += [scrape_s(victim) for _ in range(5)]
        after = victim.vitals()
    return {
        "connections": connections,
        "threads": after.threads - before.threads,
        "descriptors": after.descriptors - before.descriptors,
        "closed": hostile.closed,
        "scrape_quiet_s": round(statistics.median(quiet), 4),
        "scrape_s": round(statistics.median(scrapes), 4),
        "slowest_scrape_s": round(max(scrapes), 4),
    }


def scrape_s(victim: Victim) -> float:
    """How long a scrape takes, connection included."""
    started = time.monotonic()
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", operations_port(victim), timeout=PATIENCE_S)
    ) as page:
        page.request("GET", "/metrics")
        answer = page.getresponse()
        assert answer.status == 200
        answer.read()
    return time.monotonic() - started


def operations_port(victim: Victim) -> int:
    return int(victim.operations.rpartition(":")[2])


class Posting:
    """A body of `size` bytes on its way to /v1/classify, save for its last one."""

    def __init__(self, port: int, size: int, chunked: bool = False) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n" % length
        self.connection.sendall(head + (b"%x\r\n" % size if chunked else b""))
        self.connection.setblocking(False)
        self.unsent = memoryview(bytes(size - 1))
        self.answer = b""
        self.ended = False

    def send(self) -> None:
        """As much as the server takes now."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.connection.send(self.unsent[:65_536]) :]
        except BlockingIOError:
            return
        except OSError:
            self.ended = True

    def receive(self) -> None:
        try:
            found = self.connection.recv(65_536)
        except ConnectionError:
            found = b""
        self.answer += found
        self.ended = not found

    @property
    def end(self) -> str:
        """The status that it was answered with, or what became of it."""
        return self.answer[9:12].decode() or ("closed" if self.ended else "waits")


class HonestWeb(Asking):
    """Callers who ask over HTTP, with a connection for each call."""

    def __init__(self, victim: Victim, picture: bytes, callers: int = 2) -> None:
        super().__init__(callers)
        self._port, self._picture = web_port(victim), picture

    def ask(self) -> None:
        while not self.stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                try:
                    connection.request("POST", "/v1/classify", self._picture)
                    self.ends[str(connection.getresponse().status)] += 1
                except (OSError, http.client.HTTPException) as error:
                    self.ends[type(error).__name__] += 1


def postings(
    victim: Victim,
    picture: bytes,
    count: int = 150,
    size: int = 19_000_000,
    stay_s: float = 30.0,
    chunked: bool = False,
) -> Figures:
    """Connections to the HTTP port that send a body save for its last byte, and stay."""
    before, _ = victim.vitals().memory, victim.forget_peak()
    with HonestWeb(victim, picture) as honest, contextlib.ExitStack() as stack:
        begun = [Posting(web_port(victim), size, chunked) for _ in range(count)]
        for posting in begun:
            stack.enter_context(contextlib.closing(posting.connection))
        flood.push(begun, seconds=60, quiet_s=2.0)
        taken = sum(size - 1 - len(posting.unsent) for posting in begun)
        held, open_ = victim.vitals().memory - before, victim.vitals().descriptors
        flood.push(begun, seconds=stay_s, quiet_s=stay_s)
        ends = Counter(posting.end for posting in begun)
    peak = victim.peak() - before
    memory = {name: value // 2**20 for name, value in {"taken": taken, "held": held, "peak": peak}.items()}
    return {**memory, "descriptors": open_, "ends": dict(ends), "honest": dict(honest.ends)}


def silent(victim: Victim, picture: bytes, connections: int = 2000) -> Figures:
    """Connections to the HTTP port that send nothing, or half a request; meanwhile others ask."""
    before = victim.vitals()
    with HonestWeb(victim, picture) as honest, contextlib.ExitStack() as stack:
        for number in range(connections):
            connection = socket.create_connection(("127.0.0.1", web_port(victim)), PATIENCE_S)
            stack.enter_context(contextlib.closing(connection))
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"POST /v1/classify HTTP/1.1\r\nHost" * (number % 2))
        scrape_s(victim)
        after = victim.vitals()
    return {
        "connections": connections,
        "descriptors": after.descriptors - before.descriptors,
        "threads": after.threads - before.threads,
        "memory": (after.memory - before.memory) // 2**20,
        "honest": dict(honest.ends),
    }


def web_port(victim: Victim) -> int:
    return int(victim.http.rpartition(":")[2])
