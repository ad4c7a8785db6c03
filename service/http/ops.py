"""The operations port: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts and routes."""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from service.errors import PortUnavailable

Check = Callable[[], dict[str, Any]]
"""Facts for the answer's body; the key 'ok' decides between 200 and 503."""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes every few seconds are no news."""


class _Server(ThreadingWSGIServer):
    daemon_threads = True  # an open connection must not hold up the exit


class OpsServer:
    """Answers from the moment it is built, on threads of its own: a busy event loop does not hide the metrics."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._checks = {"/livez": live, "/readyz": ready}
        self._metrics = make_wsgi_app(registry)
        try:
            self._server = make_server(host, port, self._answer, _Server, _Quiet)
        except OSError as exc:
            raise PortUnavailable(f"{host}:{port}", "--ops-port") from exc
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="operations", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            scrape: Iterable[bytes] = self._metrics(environ, start_response)
            return scrape
        if path in self._checks:
            facts = self._checks[path]()
            return _json(start_response, "200 OK" if facts["ok"] else "503 Service Unavailable", facts)
        return _json(start_response, "404 Not Found", {"paths": ["/metrics", *self._checks]})


def _json(start_response: StartResponse, status: str, body: dict[str, Any]) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]
