"""Attacks on the HTTP ports: connections that drip, say nothing, or never end what they send."""

import contextlib
import http.client
import socket
import statistics
import time
from typing import Any

from tests.faults.victim import PATIENCE_S, Victim

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
