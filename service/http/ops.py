"""The operations port: `/metrics` for Prometheus, `/livez` and `/readyz` for the orchestrator."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.asgi import make_asgi_app
from prometheus_client.exposition import choose_encoder

from anther.errors import AntherError
from service.core.call import Caller
from service.edge.failures import failure_of
from service.http.connections import ConnectionLimits
from service.http.listener import Listener
from service.http.problems import headers as headers_of
from service.http.problems import problem, status_of
from service.identity.access import Access
from service.system.address import listening
from service.system.descriptors import raise_limit

log = logging.getLogger(__name__)

_LIMITS = ConnectionLimits(connections=64, header_bytes=8 * 1024, header_s=5.0, bodies=False)
_PART = 8  # of the file descriptors of the process, at most
_SCRAPER = Caller("")  # whoever it is, where no tokens are asked for
_FLUSH_S = 0.5  # for responses that are being written when the port closes

Check = Callable[[], dict[str, Any]]
"""The facts of the answer's body; the key 'ok' decides between 200 and 503."""


class OpsServer:
    """Answers from its construction on, in a loop and a thread of its own: a busy loop does not hide the metrics.

    With an `access` the metrics are for tokens of the scope 'metrics'; the checks are for everybody.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        live: Check,
        ready: Check,
        access: Access | None = None,
    ) -> None:
        application = _Operations(registry, {"/livez": live, "/readyz": ready}, access or Access())
        limits = replace(_LIMITS, connections=min(_LIMITS.connections, max(1, raise_limit() // _PART)))
        self._listener = Listener(application, listening(host, port, "--ops-port"), limits)
        self.port = self._listener.port
        self._loop, self._closing = asyncio.new_event_loop(), asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)
        self._thread.start()
        self._listening.wait()

    def close(self) -> None:
        """A second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._listener.start()
        self._listening.set()
        await self._closing.wait()
        await self._listener.stop(_FLUSH_S)


class _Operations:
    def __init__(self, registry: CollectorRegistry, checks: dict[str, Check], access: Access) -> None:
        self._metrics: Any = make_asgi_app(registry)
        self._checks, self._access = checks, access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._answer(scope["path"], scope, receive, send)
        except Exception as exc:
            if not isinstance(exc, AntherError):
                log.error("a request failed", exc_info=exc)
            failure = failure_of(exc)
            status = status_of(failure)
            await _send_json(send, status, problem(failure, status), headers_of(failure, status))

    async def _answer(self, path: str, scope: Any, receive: Any, send: Any) -> None:
        if path == "/metrics":
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]
            caller = self._access.identify(given[0] if len(given) == 1 else None, _SCRAPER)
            self._access.check_scope(caller, "metrics")
            await self._metrics(_readable(scope), receive, send)
        elif path in self._checks:
            facts = self._checks[path]()
            await _send_json(send, 200 if facts["ok"] else 503, facts)
        else:
            await _send_json(send, 404, {"paths": ["/metrics", *self._checks]})


def _readable(scope: Any) -> dict[str, Any]:
    """The request without what prometheus_client answers with an error: an unknown format, bytes that are no text.

    Its usual format is then the answer.
    """
    headers = [header for header in scope["headers"] if header[0] in {b"accept", b"accept-encoding"}]
    try:
        (scope["query_string"] + b"".join(value for _, value in headers)).decode()
        choose_encoder(",".join(value.decode() for name, value in headers if name == b"accept"))
    except Exception:  # of several kinds, as nothing is checked there
        return {**scope, "headers": [], "query_string": b""}
    return {**scope, "headers": headers}


async def _send_json(send: Any, status: int, body: dict[str, Any], more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    text = json.dumps(body).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
