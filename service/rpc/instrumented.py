"""Handlers of our own services: messages are parsed, errors become statuses, and every request is recorded.

Handlers are wrapped once, when they are registered: a gRPC interceptor would cost a coroutine with every call.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import grpc

from anther.errors import AntherError
from service.core.call import Call, Caller, caller_at
from service.edge.calls import Calls, Method, Resolve, Weigh, one_image
from service.rpc.intake import Intake, parsed
from service.rpc.status import Status, status_of

UnaryHandler = Callable[[object, Any], Awaitable[Any]]
StreamHandler = Callable[[object, Any], Awaitable[None]]


class InstrumentedHandlers:
    """Stands in for the server where generated code registers a servicer's handlers, and passes them on, wrapped.

    A unary handler is called with the request, the version that `resolve` gives for it, and the call; a streaming one
    with the requests and the call, and records each of its requests itself.
    """

    def __init__(
        self, server: grpc.aio.Server, calls: Calls, intake: Intake, resolve: Resolve, weigh: Weigh = one_image
    ) -> None:
        self._server = server
        self._calls = calls
        self._intake = intake
        self._resolve = resolve
        self._weigh = weigh

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What generated code calls first; the next one brings the same handlers by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        wrapped = {name: self._wrapped(handler, name) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrapped(self, handler: Any, name: str) -> Any:
        """Unary methods too as request streams, the same on the wire: a message waits until there is room for it."""
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler, name), None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(self._unary(handler, name), None, handler.response_serializer)

    def _unary(self, handler: Any, name: str) -> UnaryHandler:
        """A call begins when its message is there: one that never ends must not keep the server from stopping."""
        calls, intake, parse, method = (
            self._calls,
            self._intake,
            handler.request_deserializer,
            Method(name, self._resolve, handler.unary_unary, weigh=self._weigh),
        )

        async def unary(_: object, context: Any) -> Any:
            started, request = time.perf_counter(), None
            try:
                call = calls.admit(name, call_of(context, calls.traced), authorization_of(context))
            except AntherError as exc:
                return fail(context, status_of(exc))
            try:
                with intake.place(call.caller.key):
                    request = parsed(parse, await intake.message(context, call.caller.key))
                    calls.begin(name, call)
                    try:
                        return await calls.run(method, request, call)
                    finally:
                        calls.end(call)
            except asyncio.CancelledError:
                if request is None:  # `run` records what becomes of a request
                    calls.stream_departed(call, started)
                raise
            except Exception as exc:
                if request is None:
                    calls.refused(name, exc, call, started)
                return fail(context, status_of(exc))

        return unary

    def _stream(self, handler: Any, name: str) -> StreamHandler:
        """The handler's generator is closed before the call ends: gRPC would leave that to the garbage collector, and
        work for a caller who left would go on until then.
        """
        calls, intake, parse, answers = (
            self._calls,
            self._intake,
            handler.request_deserializer,
            handler.stream_stream,
        )

        async def stream(_: object, context: Any) -> None:
            started = time.perf_counter()
            try:
                call = calls.admit(name, call_of(context, calls.traced), authorization_of(context))
                calls.begin(name, call)
            except AntherError as exc:
                return fail(context, status_of(exc))
            try:
                with intake.place(call.caller.key):
                    requests = intake.requests(parse, context, call.caller.key)
                    async with contextlib.aclosing(answers(requests, call)) as responses:
                        async for response in responses:
                            calls.last = time.monotonic()
                            await context.write(response)
            except (asyncio.CancelledError, grpc.aio.BaseError):  # the latter: a write to a caller who has just left
                calls.stream_departed(call, started)
                raise
            except Exception as exc:
                calls.stream_failed(exc, call, started)
                fail(context, status_of(exc))
            finally:
                calls.end(call)
            return None

        return stream


def call_of(context: Any, traced: bool = False) -> Call:
    """What gRPC knows of a call. Where it is `traced`, the caller's span, too."""
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + remaining
    traceparent = dict(context.invocation_metadata()).get("traceparent", "") if traced else ""
    return Call("grpc", caller_of(context.peer()), deadline, str(traceparent))


def authorization_of(context: Any) -> str | None:
    """The header; None where there is none, or more than one."""
    found = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    return found[0] if len(found) == 1 else None


def caller_of(peer: str) -> Caller:
    """The caller at a gRPC peer: "ipv4:192.0.2.1:5000", "ipv6:%5B2001:db8::1%5D:5000", "unix:/run/socket"."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return caller_at(peer)
    return caller_at(unquote(rest.rpartition(":")[0]).strip("[]"))


def fail(context: Any, status: Status) -> None:
    """Not `context.abort`: its exception and the call would hold each other, and the image, until the next garbage
    collection.
    """
    context.set_code(status.code)
    context.set_details(status.message)
    context.set_trailing_metadata(status.trailing_metadata)
