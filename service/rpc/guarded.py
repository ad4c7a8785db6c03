"""The standard services, health and reflection, from their libraries, with our refusal of malformed messages.

gRPC's own parsing answers those with UNKNOWN and the name of a Python class, and logs a trace.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from anther.errors import AntherError
from service.edge.calls import Calls
from service.errors import InvalidArgument
from service.rpc.instrumented import authorization_of, call_of, fail
from service.rpc.intake import Intake, parsed
from service.rpc.status import status_of

MODEL = "model:"  # stands before a model's name, where health is asked
_LONGEST = 4096  # bytes of a question about a service's health, which may be remembered as long as its caller watches


class GuardedHandlers:
    """Stands in for the server where a library's generated code registers its handlers, and passes them on, wrapped.

    What watches has an `Intake` of its own: watchers stay, and must not take the places of probes. With `calls` the
    methods are for callers who may make them; else they are free.
    """

    def __init__(self, server: grpc.aio.Server, intake: Intake, watchers: Intake, calls: Calls | None = None) -> None:
        self._server = server
        self._intake, self._watchers = intake, watchers
        self._calls = calls

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What generated code calls first; the next one brings the same handlers by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        wrapped = {name: self._wrapped(handler, name) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrapped(self, handler: Any, name: str) -> Any:
        """All methods as request streams; see `service.rpc.instrumented`."""
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(handler, name), None, handler.response_serializer)
        if handler.response_streaming:
            watch = self._single(handler, handler.unary_stream, name, self._watchers)
            return grpc.stream_stream_rpc_method_handler(watch, None, handler.response_serializer)
        single = self._single(handler, handler.unary_unary, name, self._intake)
        return grpc.stream_unary_rpc_method_handler(single, None, handler.response_serializer)

    def _single(self, handler: Any, behave: Any, name: str, intake: Intake) -> Any:
        async def guarded(_: object, context: Any) -> Any:
            try:
                caller = self._admitted(name, context)
                with intake.place(caller):
                    data = await intake.message(context, caller)
                    if len(data) > _LONGEST:
                        raise InvalidArgument("request", f"{len(data):,} bytes", f"at most {_LONGEST:,}")
                    return await behave(parsed(handler.request_deserializer, data), context)
            except AntherError as exc:
                return fail(context, status_of(exc))

        return guarded

    def _stream(self, handler: Any, name: str) -> Any:
        async def guarded(_: object, context: Any) -> None:
            try:
                caller = self._admitted(name, context)
                with self._watchers.place(caller):
                    requests = self._watchers.requests(handler.request_deserializer, context, caller)
                    async for response in handler.stream_stream(requests, context):
                        await context.write(response)
            except AntherError as exc:
                fail(context, status_of(exc))

        return guarded

    def _admitted(self, name: str, context: Any) -> str:
        """The caller's key. They do not count among the calls in progress: a watcher may stay for ever."""
        call = call_of(context)
        if self._calls is not None:
            call = self._calls.admit(name, call, authorization_of(context))
        return call.caller.key


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """With `List`, which the library leaves to whoever needs it. It is free, and so names no models."""

    async def List(self, request: Any, context: Any) -> health_pb2.HealthListResponse:  # noqa: ARG002, N802
        found = [(name, status) for name, status in self._server_status.items() if not name.startswith(MODEL)]
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in found}
        return health_pb2.HealthListResponse(statuses=statuses)


def enable_reflection(server: GuardedHandlers, services: Sequence[str], files: Iterable[FileDescriptor]) -> None:
    """Let clients ask for these services, for health and for reflection itself; `files` define the first of them."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    pool = copied((*files, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR))
    servicer = reflection.aio.ReflectionServicer(names, pool)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


def copied(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """A new pool with these files and what they import; the default one may hold another library's text of the same
    names.
    """
    pool = DescriptorPool()
    for file in files:
        _add(file, pool)
    return pool


def _add(file: FileDescriptor, pool: DescriptorPool) -> None:
    for dependency in file.dependencies:
        _add(dependency, pool)
    pool.AddSerializedFile(file.serialized_pb)
