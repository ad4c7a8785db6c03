"""A server in this process that answers over HTTP, and a client that sends what it is told."""

import contextlib
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

PATIENCE_S = 60


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def kind(self) -> str:
        return str(self.headers["Content-Type"])

    def json(self) -> Any:
        return json.loads(self.body)


class Web:
    """The HTTP side of an edge; each request has a connection of its own."""

    def __init__(self, edge: Any) -> None:
        self.edge, self.server = edge, edge.http

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        return sum(
            sample.value
            for family in self.edge.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture
def start_web(start_edge) -> Callable[..., Web]:
    """`start_web(http_connections=…)`: as `start_edge`."""
    return lambda folder=None, **options: Web(start_edge(folder, **options))


def form(*files: tuple[str, bytes], boundary: str = "b0undary") -> tuple[bytes, str]:
    """A body and its type."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="photo"; filename="%s"\r\n\r\n%s\r\n'
        % (boundary.encode(), name.encode(), data)
        for name, data in files
    ]
    return b"".join(parts) + b"--%s--\r\n" % boundary.encode(), f"multipart/form-data; boundary={boundary}"
