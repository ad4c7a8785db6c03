"""Around every call of our own services: errors become statuses, and the call is counted and timed."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bundle.errors import AntherError
from service.metrics import Metrics
from service.registry import Registry
from service.rpc.status import Status, status_of

log = logging.getLogger(__name__)

_OURS = "/anther.v1."


class Interceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler once; other services (health, reflection) pass untouched."""

    def __init__(self, metrics: Metrics, registry: Registry) -> None:
        self._metrics = metrics
        self._registry = registry
        self._wrapped: dict[str, Any] = {}  # known methods only: unknown ones have no handler

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
        async def observed(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code = "CANCELLED"
            try:
                response = await handler.unary_unary(request, context)
                code = "OK"
                return response
            except asyncio.CancelledError:  # the caller left, or its deadline passed
                self._metrics.refused("CANCELLED")
                raise
            except Exception as exc:
                status = status_of(exc)
                code = status.code.name
                self._note(exc, status)
                await context.abort(status.code, status.message, status.trailing_metadata)
            finally:
                model, version = self._labels(request)
                self._metrics.finished(model, version, name, code, time.perf_counter() - started)

        return grpc.unary_unary_rpc_method_handler(observed, handler.request_deserializer, handler.response_serializer)

    def _note(self, error: Exception, status: Status) -> None:
        self._metrics.refused(status.reason)
        if not isinstance(error, AntherError):
            log.error("a call failed", exc_info=error)

    def _labels(self, request: Any) -> tuple[str, str]:
        """Model and version as loaded; empty for a name that the client made up."""
        model = self._registry.named(getattr(request, "model", ""))
        return (model.name, str(model.version)) if model else ("", "")
