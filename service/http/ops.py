"""The operations port: `/metrics` for Prometheus, `/livez` and `/readyz` for the orchestrator."""

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from service.system.address import refuse_unusable

log = logging.getLogger(__name__)

_POLL_S = 0.1  # how long closing waits at most

Check = Callable[[], dict[str, Any]]
"""The facts of the answer's body; the key 'ok' decides between 200 and 503."""


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds that a connection may be silent; each holds a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes every few seconds are not logged."""


class _Server(ThreadingWSGIServer):
    daemon_threads = True  # an open connection must not hold up the exit

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """Resets by port checks of load balancers and timeouts of silent connections are not logged."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("a request from %s failed", client_address, exc_info=error)


class _Server6(_Server):
    address_family = socket.AF_INET6


class OpsServer:
    """Answers from its construction on, on threads of its own, so that a busy event loop does not hide the metrics."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._checks = {"/livez": live, "/readyz": ready}
        self._metrics = make_wsgi_app(registry)
        refuse_unusable(host, port, "--ops-port")
        self._server = make_server(host, port, self._answer, _Server6 if ":" in host else _Server, _Quiet)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="operations", daemon=True
        )
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
