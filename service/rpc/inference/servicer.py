"""`inference.GRPCInferenceService`: wire in, domain call, wire out. Errors are left to `instrumented`."""
# ruff: noqa: N802, ARG002 - methods have the protocol's names, and every handler takes the same arguments

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

from anther.errors import AntherError
from anther.open_inference import open_inference_pb2 as pb
from service.core.call import Call
from service.core.classifier import Classifier
from service.core.requests import LONGEST_ID, Target
from service.core.statistics import Statistics
from service.core.streams import BoundedStreams
from service.edge.calls import Calls, Method, Weight
from service.errors import Draining, NotOffered
from service.rpc.inference.config import Bounds, model_config
from service.rpc.inference.infer import Inference, target_of
from service.rpc.inference.metadata import model_metadata, server_metadata
from service.rpc.inference.parameters import version_of
from service.rpc.inference.repository import Control, ModelControl, index
from service.rpc.inference.statistics import model_statistics
from service.rpc.inference.versions import serving
from service.rpc.status import status_of
from service.versions.loader import LiveModel
from service.versions.routes import STABLE

_FINAL = "triton_final_response"  # a response parameter: no other response to the request follows

_MEMORY = ("shared memory", "send tensors in the message, as raw_input_contents where speed matters")
_TRACING = ("trace settings", "stage times are in its metrics and in ModelStatistics")
_LOGGING = ("log settings for clients", "its operator chooses them when it is started")

# Requests that may name a model without being answered by one of its versions, and the field that names it.
_NAMES: dict[type, str] = {
    pb.ModelReadyRequest: "name",
    pb.ModelStatisticsRequest: "name",
    pb.RepositoryModelLoadRequest: "model_name",
    pb.RepositoryModelUnloadRequest: "model_name",
    pb.TraceSettingRequest: "model_name",
}


def _refusal(call: str, what: str, instead: str) -> Callable[..., Awaitable[NoReturn]]:
    async def refuse(*_: object) -> NoReturn:
        raise NotOffered(call, what, instead)

    return refuse


class InferenceServicer:
    """`control` brings models into service and takes them out; None refuses clients that want to."""

    def __init__(
        self,
        classifier: Classifier,
        calls: Calls,
        streams: BoundedStreams,
        statistics: Statistics,
        bounds: Bounds,
        control: Control | None = None,
    ) -> None:
        self._classifier = classifier
        self._registry = classifier.registry
        self._calls = calls
        self._streams = streams
        self._statistics = statistics
        self.bounds = bounds
        self._inference = Inference(classifier, bounds.images)
        self._control = ModelControl(control)
        self._streamed = Method(
            "ModelStreamInfer",
            self.resolve,
            self._inference.answer,
            streamed=True,
            ends_stream=Draining,
            weigh=self.weigh,
        )

    def weigh(self, request: pb.ModelInferRequest) -> Weight:
        return self._inference.weigh(request)

    def resolve(self, request: Any) -> LiveModel | None:
        """The version that answers, or that stands for the named model; None where the request names none.

        Raises what `Classifier.find` raises, and `InvalidArgument`.
        """
        if isinstance(request, pb.ModelInferRequest):
            return self._classifier.find(target_of(request))
        if isinstance(request, pb.ModelMetadataRequest | pb.ModelConfigRequest):
            # Without a number the stable one, also beside a canary: two questions in a row are about the same model.
            return self._registry.find(request.name, version_of(request.version), STABLE)
        name = getattr(request, _NAMES.get(type(request), ""), "")
        return self._registry.named(name) if name else None

    async def ServerLive(self, request: pb.ServerLiveRequest, *_: object) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, *_: object) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=any(self._serves(Target(model.name)) for model in self._registry.live()))

    async def ModelReady(self, request: pb.ModelReadyRequest, *_: object) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._serves(Target(request.name, version_of(request.version))))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, *_: object) -> pb.ServerMetadataResponse:
        return server_metadata(self.bounds.request_bytes)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, model: LiveModel, call: Call
    ) -> pb.ModelMetadataResponse:
        return model_metadata(model, serving(self._registry, model.name))

    async def ModelConfig(self, request: pb.ModelConfigRequest, model: LiveModel, call: Call) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=model_config(model, serving(self._registry, model.name), self.bounds))

    async def ModelInfer(self, request: pb.ModelInferRequest, model: LiveModel, call: Call) -> pb.ModelInferResponse:
        return await self._inference.answer(request, model, call)

    def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], call: Call
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        return self._streams.answers(requests, functools.partial(self._stream_item, call), in_order=True)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, model: LiveModel | None, call: Call
    ) -> pb.ModelStatisticsResponse:
        found = model_statistics(request, self._registry, self._statistics).model_stats
        return pb.ModelStatisticsResponse(model_stats=[each for each in found if call.caller.may_ask(each.name)])

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, model: LiveModel | None, call: Call
    ) -> pb.RepositoryIndexResponse:
        found = (await asyncio.to_thread(index, request, self._registry)).models
        return pb.RepositoryIndexResponse(models=[each for each in found if call.caller.may_ask(each.name)])

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, *_: object
    ) -> pb.RepositoryModelLoadResponse:
        return await self._control.load(request)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, *_: object
    ) -> pb.RepositoryModelUnloadResponse:
        return await self._control.unload(request)

    SystemSharedMemoryStatus = _refusal("SystemSharedMemoryStatus", *_MEMORY)
    SystemSharedMemoryRegister = _refusal("SystemSharedMemoryRegister", *_MEMORY)
    SystemSharedMemoryUnregister = _refusal("SystemSharedMemoryUnregister", *_MEMORY)
    CudaSharedMemoryStatus = _refusal("CudaSharedMemoryStatus", *_MEMORY)
    CudaSharedMemoryRegister = _refusal("CudaSharedMemoryRegister", *_MEMORY)
    CudaSharedMemoryUnregister = _refusal("CudaSharedMemoryUnregister", *_MEMORY)
    TraceSetting = _refusal("TraceSetting", *_TRACING)
    LogSettings = _refusal("LogSettings", *_LOGGING)

    def _serves(self, target: Target) -> bool:
        try:
            self._classifier.find(target)
        except AntherError:  # whatever keeps it from answering, now it does not
            return False
        return True

    async def _stream_item(
        self, call: Call, request: pb.ModelInferRequest, placed: asyncio.Event
    ) -> pb.ModelStreamInferResponse:
        """Raises `Draining`, which ends the stream."""
        try:
            response = await self._calls.run(self._streamed, request, call, placed)
        except Draining:
            raise
        except Exception as exc:  # recorded, and logged where nobody foresaw it
            failed = pb.ModelInferResponse(id=request.id[:LONGEST_ID])
            return pb.ModelStreamInferResponse(error_message=status_of(exc).message, infer_response=failed)
        response.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)
