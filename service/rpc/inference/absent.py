"""Calls of the protocol for what this server does not have: each is refused by a sentence that says what to do."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from service.errors import NotOffered

_MEMORY = ("shared memory", "send tensors in the message, as raw_input_contents where speed matters")
_TRACING = ("trace settings", "stage times are in its metrics and in ModelStatistics")
_LOGGING = ("log settings for clients", "its operator chooses them when it is started")


def _refusal(call: str, what: str, instead: str) -> Callable[[Any, Any, Any], Awaitable[NoReturn]]:
    async def refuse(servicer: Any, request: Any, context: Any) -> NoReturn:  # noqa: ARG001 - whatever is asked
        raise NotOffered(call, what, instead)

    return refuse


class AbsentCalls(GRPCInferenceServiceServicer):
    SystemSharedMemoryStatus = _refusal("SystemSharedMemoryStatus", *_MEMORY)
    SystemSharedMemoryRegister = _refusal("SystemSharedMemoryRegister", *_MEMORY)
    SystemSharedMemoryUnregister = _refusal("SystemSharedMemoryUnregister", *_MEMORY)
    CudaSharedMemoryStatus = _refusal("CudaSharedMemoryStatus", *_MEMORY)
    CudaSharedMemoryRegister = _refusal("CudaSharedMemoryRegister", *_MEMORY)
    CudaSharedMemoryUnregister = _refusal("CudaSharedMemoryUnregister", *_MEMORY)
    TraceSetting = _refusal("TraceSetting", *_TRACING)
    LogSettings = _refusal("LogSettings", *_LOGGING)
