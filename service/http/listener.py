"""An HTTP port: uvicorn in a running event loop, without its signal handlers, its log and its trust in proxies.

The operations port and the port for callers both stand on it.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import uvicorn

from service.http.connections import BoundedProtocol, ConnectionLimits, Connections

Asgi = Callable[[Any, Any, Any], Awaitable[None]]

_BACKLOG = 4096  # connections that the kernel may hold until they are accepted
_HANDSHAKE_S = 10.0
_DATE_S = 1.0  # how old the header `Date` may be


class Listener:
    """Listens on `bound` from `start` on; in plain text without `tls`. Every request's scope has the `state`."""

    def __init__(
        self,
        application: Asgi,
        bound: socket.socket,
        limits: ConnectionLimits,
        state: Mapping[str, Any] = MappingProxyType({}),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.connections = Connections(limits.connections)
        protocol: Any = functools.partial(BoundedProtocol, self.connections, limits)
        config = uvicorn.Config(
            application, http=protocol, ws="none", lifespan="off", interface="asgi3", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            headers=[("X-Content-Type-Options", "nosniff")], backlog=_BACKLOG,
            timeout_keep_alive=int(limits.idle_s),
        )  # fmt: skip
        self._server = _Server(config, dict(state), tls)
        self._socket = bound
        self.port = int(bound.getsockname()[1])
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._serving.done():
            await self._serving

    async def stop(self, flush_s: float) -> None:
        """Close what waits. Responses have `flush_s` seconds to leave; what is then in progress is cancelled."""
        if self._serving is None:
            self._socket.close()
            return
        self._server.end()
        await self._serving
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connections.none.wait(), flush_s)
        state = self._server.server_state
        for task in state.tasks:
            task.cancel()
        if state.tasks:
            await asyncio.wait(state.tasks)
        for connection in list(state.connections):
            connection.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, state: dict[str, Any], tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._state, self._tls = state, tls
        self.listening, self._ended = asyncio.Event(), asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ended.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The one of uvicorn sets no limit to TLS handshakes, of which connections know nothing."""
        config, loop = self.config, asyncio.get_running_loop()
        kind: Any = config.http_protocol_class
        protocol = functools.partial(kind, config=config, server_state=self.server_state, app_state=self._state)
        limit_s = None if self._tls is None else _HANDSHAKE_S
        self.servers = [
            await loop.create_server(
                protocol, sock=bound, ssl=self._tls, backlog=config.backlog, ssl_handshake_timeout=limit_s
            )
            for bound in sockets or ()
        ]
        self.started = True
        self.listening.set()

    async def main_loop(self) -> None:
        """The one of uvicorn wakes ten times a second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _DATE_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The one of uvicorn looks every tenth of a second whether responses have left."""
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
