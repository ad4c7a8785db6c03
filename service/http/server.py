"""The HTTP port for callers: what is at which path, and how it starts and drains."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router

from service.config import Settings
from service.core.call import Call, caller_at
from service.edge.arrivals import Arrivals
from service.edge.calls import Calls
from service.errors import MethodNotAllowed, ServiceError, UnknownPath
from service.http.connections import ConnectionLimits, has_body
from service.http.exchange import ARRIVALS, Refusal, answer, refusal
from service.http.listener import Asgi, Listener
from service.system.address import listening
from service.system.descriptors import connections_at_most

if TYPE_CHECKING:
    from service.identity.certificates import Certificates

_FLUSH_S = 1.0  # for the last responses to leave, once every call is answered


class HttpServer:
    """Not listening until `start`; `stop` waits for calls in progress."""

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        calls: Calls,
        arrivals: Arrivals,
        settings: Settings,
        port: int,
        certificates: "Certificates | None" = None,
    ) -> None:
        self._calls = calls
        most = connections_at_most(settings.http_connections, settings.grpc_connections)
        limits = ConnectionLimits(most, idle_s=settings.idle_s)
        bound = listening(settings.host, port, "--http-port", shared=settings.workers > 1)
        tls = None if certificates is None else certificates.context
        application = _open_to(settings.cors.split(), Application(routes, calls))
        self._listener = Listener(application, bound, limits, {ARRIVALS: arrivals}, tls)
        self.port = self._listener.port

    async def start(self) -> None:
        await self._listener.start()

    async def stop(self, grace_s: float) -> None:
        """End as soon as every call is answered, at the latest after `grace_s` seconds; cancel what is left."""
        ends = time.monotonic() + grace_s
        await self._calls.quiet(ends)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.idle.wait(), ends - time.monotonic())
        await self._listener.stop(max(0.0, min(ends - time.monotonic(), _FLUSH_S)))


def _open_to(origins: list[str], application: Asgi) -> Asgi:
    """Where any are named, scripts of pages from there may ask; browsers refuse it to all others."""
    if not origins:
        return application
    return CORSMiddleware(
        application,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "Inference-Header-Content-Length", "X-Request-Id"),
        expose_headers=("Inference-Header-Content-Length", "Retry-After", "X-Request-Id"),
    )


class Application:
    """What is at which path; `refuse` forms the errors of paths and methods that are not there."""

    def __init__(self, routes: Sequence[BaseRoute], calls: Calls, refuse: Refusal = refusal) -> None:
        self._router, self._calls, self._refuse = Router(routes, redirect_slashes=False), calls, refuse

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = self  # so that the router raises what it would answer in plain text
        try:
            await self._router(scope, receive, send)
        except HTTPException as exc:
            error = _error_of(exc, scope)
            self._calls.stream_failed(error, Call("http", caller_at(scope["client"][0])), time.perf_counter())
            await answer(self._refuse(error), has_body(scope["headers"]), receive, send)


def _error_of(error: HTTPException, scope: Any) -> ServiceError:
    if error.status_code != 405:
        return UnknownPath(scope["path"])
    allowed = (error.headers or {})["Allow"].split(", ")
    return MethodNotAllowed(scope["method"], ", ".join(sorted(allowed)))
