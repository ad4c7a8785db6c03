"""Around every call of our own services: errors become statuses, and the call is counted and timed."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from bundle.errors import AntherError
from service.errors import DeadlineExpired, InvalidArgument
from service.metrics import Metrics
from service.registry import Registry
from service.rpc.status import Status, reason_of, status_of

log = logging.getLogger(__name__)

_OURS = "/anther.v1."


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler once; other services (health, reflection) pass untouched."""

    def __init__(self, metrics: Metrics, registry: Registry) -> None:
        self._metrics = metrics
        self._registry = registry
        self._wrapped: dict[str, Any] = {}  # known methods only: unknown ones have no handler
        self._running = 0
        self.last_call = 0.0  # when one last came, in seconds of `time.monotonic`
        self.idle = asyncio.Event()  # set while no call of ours is in progress
        self.idle.set()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        method = str(handler_call_details.method)
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OURS):
            return handler
        self._wrapped[method] = self._wrap(handler, method.rpartition("/")[2])
        return self._wrapped[method]

    def _wrap(self, handler: Any, name: str) -> Any:
        async def observed(data: bytes, context: Any) -> Any:
            started, where, code = time.perf_counter(), ("", ""), "CANCELLED"
            self._begin()
            try:
                request = _parsed(handler, data)
                where = self._labels(request)
                response = await handler.unary_unary(request, context)
                code = "OK"
                return response
            except asyncio.CancelledError:
                code = self._note_departure(context)
                raise
            except Exception as exc:
                status = status_of(exc)
                code = status.code.name
                self._note(exc, status)
                return _fail(context, status)
            finally:
                self._metrics.finished(*where, name, code, time.perf_counter() - started)
                self._end()

        return grpc.unary_unary_rpc_method_handler(observed, None, handler.response_serializer)

    def _begin(self) -> None:
        self._running += 1
        self.last_call = time.monotonic()
        self.idle.clear()

    def _end(self) -> None:
        self._running -= 1
        if self._running == 0:
            self.idle.set()

    def _note_departure(self, context: Any) -> str:
        """The code of a call that gRPC itself ended: its deadline passed, or the caller left."""
        if context.time_remaining() == 0:
            self._metrics.refused(reason_of(DeadlineExpired))
            return "DEADLINE_EXCEEDED"
        self._metrics.refused("CANCELLED")
        return "CANCELLED"

    def _note(self, error: Exception, status: Status) -> None:
        self._metrics.refused(status.reason)
        if not isinstance(error, AntherError):
            log.error("a call failed", exc_info=error)

    def _labels(self, request: Any) -> tuple[str, str]:
        """Model and version as loaded; empty for a name that the client made up."""
        model = self._registry.named(getattr(request, "model", ""))
        return (model.name, str(model.version)) if model else ("", "")


def _parsed(handler: Any, data: bytes) -> Any:
    """Done here, not by gRPC, which answers UNKNOWN with the name of a Python class."""
    try:
        return handler.request_deserializer(data)
    except DecodeError as exc:
        raise InvalidArgument("request", f"{len(data):,} bytes", "a serialized message of the method's type") from exc


def _fail(context: Any, status: Status) -> None:
    """Not `context.abort`: its exception and the call hold each other, and with them the picture, until the garbage
    collector comes by.
    """
    context.set_code(status.code)
    context.set_details(status.message)
    context.set_trailing_metadata(status.trailing_metadata)
