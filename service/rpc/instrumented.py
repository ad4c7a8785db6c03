"""Around every call of our own services: errors become statuses, and the call is counted and timed.

Handlers are wrapped once, when they are registered: a gRPC interceptor would cost a coroutine with every call.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from anther.errors import AntherError, reason_of
from service.core.classifier import answering
from service.errors import DeadlineExpired, InvalidArgument
from service.metrics import Metrics
from service.rpc.status import Status, status_of
from service.versions.registry import Registry

log = logging.getLogger(__name__)

SAME_MOMENT_S = 0.05  # a client ends a call at its deadline by its own clock, which may be ahead of the server's

Handler = Callable[[Any, Any], Awaitable[Any]]
StreamHandler = Callable[[Any, Any], Awaitable[None]]


class InstrumentedHandlers:
    """Stands in for the server where generated code registers its handlers, and passes them on, wrapped."""

    def __init__(self, server: grpc.aio.Server, metrics: Metrics, registry: Registry) -> None:
        self._server = server
        self._metrics = metrics
        self._registry = registry
        self._running = 0
        self.last_call = 0.0  # when one last came, in seconds of `time.monotonic`
        self.idle = asyncio.Event()  # set while no call of ours is in progress
        self.idle.set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What generated code calls first; the next one brings the same handlers by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        wrapped = {name: self._wrapped(handler, name) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrapped(self, handler: Any, name: str) -> Any:
        if handler.request_streaming:
            stream = self._observed_stream(handler)
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(self._observed(handler, name), None, handler.response_serializer)

    def _observed(self, handler: Any, name: str) -> Handler:
        parse, behave = handler.request_deserializer, handler.unary_unary

        async def observed(data: bytes, context: Any) -> Any:
            started, request, code = time.perf_counter(), None, "CANCELLED"
            self._begin()
            try:
                request = parsed(parse, data)
                response = await behave(request, context)
                code = "OK"
                return response
            except asyncio.CancelledError:
                code = self._note_departure(context)
                raise
            except Exception as exc:
                status = noted(exc, self._metrics)
                code = status.code.name
                return fail(context, status)
            finally:
                self._metrics.finished(*self._labels(request), name, code, time.perf_counter() - started)
                self._end()

        return observed

    def _observed_stream(self, handler: Any) -> StreamHandler:
        """A stream counts its own items; what ends it is turned into a status here.

        The handler's generator is closed before the call ends: gRPC would leave that to the garbage collector, and work
        for a caller who left would go on until then.
        """
        parse, behave = handler.request_deserializer, handler.stream_stream

        async def observed(messages: AsyncIterator[bytes], context: Any) -> None:
            self._begin()
            try:
                async with contextlib.aclosing(behave(parsed_all(parse, messages), context)) as responses:
                    async for response in responses:
                        self.last_call = time.monotonic()
                        await context.write(response)
            except (asyncio.CancelledError, grpc.aio.BaseError):  # the latter: a write to a caller who has just left
                self._note_departure(context)
                raise
            except Exception as exc:
                fail(context, noted(exc, self._metrics))
            finally:
                self._end()

        return observed

    def _begin(self) -> None:
        self._running += 1
        self.last_call = time.monotonic()
        if self._running == 1:
            self.idle.clear()

    def _end(self) -> None:
        self._running -= 1
        if self._running == 0:
            self.idle.set()

    def _note_departure(self, context: Any) -> str:
        code = departure(context)
        self._metrics.refused(reason_of(DeadlineExpired) if code == "DEADLINE_EXCEEDED" else code)
        return code

    def _labels(self, request: Any) -> tuple[str, str]:
        """The version that was asked, or that stands for the model; empty for a name that the client made up."""
        model = answering.get()
        if model is None and request is not None:
            model = self._registry.named(_model_of(request))
        return model.labels if model else ("", "")


def departure(context: Any) -> str:
    """The code of a call that gRPC itself ended: its deadline passed, or the caller left."""
    remaining = context.time_remaining()
    late = remaining is not None and remaining < SAME_MOMENT_S
    return "DEADLINE_EXCEEDED" if late else "CANCELLED"


def _model_of(request: Any) -> str:
    """The field is `model` in anther.v1, and `model_name` or `name` in the Open Inference Protocol."""
    for field in ("model", "model_name", "name"):
        name: str | None = getattr(request, field, None)
        if name is not None:
            return name
    return ""


def noted(error: BaseException, metrics: Metrics) -> Status:
    """The status of a call, or of an item of a stream, that failed; counted, and logged where nobody foresaw it."""
    status = status_of(error)
    metrics.refused(status.reason)
    if not isinstance(error, AntherError):
        log.error("a call failed", exc_info=error)
    return status


def parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Done here, not by gRPC, which answers UNKNOWN with the name of a Python class."""
    try:
        return parse(data)
    except DecodeError as exc:
        raise InvalidArgument("request", f"{len(data):,} bytes", "a serialized message of the method's type") from exc


async def parsed_all(parse: Callable[[bytes], Any], messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """Not a generator expression, which begins to iterate when it is made: of messages that nobody asks for in the end
    gRPC says that they were never awaited.
    """
    async for data in messages:
        yield parsed(parse, data)


def fail(context: Any, status: Status) -> None:
    """Not `context.abort`: its exception and the call hold each other, and with them the picture, until the garbage
    collector comes by.
    """
    context.set_code(status.code)
    context.set_details(status.message)
    context.set_trailing_metadata(status.trailing_metadata)
