"""`inference.GRPCInferenceService`: wire in, domain call, wire out."""
# ruff: noqa: N802, ARG002 - names and arguments are the protocol's

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeAlias

import grpc

from anther.errors import AntherError
from anther.open_inference import open_inference_pb2 as pb
from service.core.classifier import Classifier, Target, answering
from service.errors import Draining
from service.metrics import Metrics
from service.rpc.inference.absent import AbsentCalls
from service.rpc.inference.config import Bounds, model_config
from service.rpc.inference.infer import Inference
from service.rpc.inference.metadata import model_metadata, server_metadata
from service.rpc.inference.parameters import version_of
from service.rpc.inference.repository import Control, ModelControl, index
from service.rpc.inference.statistics import model_statistics
from service.rpc.inference.stream import OrderedStreams
from service.rpc.inference.versions import serving
from service.rpc.instrumented import departure, noted
from service.versions.registry import LiveModel
from service.versions.routes import STABLE

_FINAL = "triton_final_response"  # a response parameter: no other response to the request follows

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InferenceServicer(AbsentCalls):
    """Errors are left to `observed`. A stream has at most `places` requests in work. Without a `Control`, clients may
    not load and unload models.
    """

    def __init__(
        self, classifier: Classifier, metrics: Metrics, bounds: Bounds, places: int, control: Control | None = None
    ) -> None:
        self._classifier = classifier
        self._registry = classifier.registry
        self._metrics = metrics
        self._bounds = bounds
        self._inference = Inference(classifier, metrics, bounds.pictures)
        self._control = ModelControl(control)
        self._streams = OrderedStreams(places)

    def end_streams(self) -> None:
        """Each answers what it has read, then ends as UNAVAILABLE."""
        self._streams.end()

    async def ServerLive(self, request: pb.ServerLiveRequest, context: "Context") -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: "Context") -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=any(self._serves(Target(model.name)) for model in self._registry.live()))

    async def ModelReady(self, request: pb.ModelReadyRequest, context: "Context") -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._serves(Target(request.name, version_of(request.version))))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: "Context") -> pb.ServerMetadataResponse:
        return server_metadata(self._bounds.request_bytes)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: "Context") -> pb.ModelMetadataResponse:
        model = self._described(request.name, request.version)
        return model_metadata(model, serving(self._registry, model.name))

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: "Context") -> pb.ModelConfigResponse:
        model = self._described(request.name, request.version)
        return pb.ModelConfigResponse(config=model_config(model, serving(self._registry, model.name), self._bounds))

    async def ModelInfer(self, request: pb.ModelInferRequest, context: "Context") -> pb.ModelInferResponse:
        return await self._inference.answer(request, context.time_remaining())

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: "Context"
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        answer = functools.partial(self._stream_item, context)
        async with contextlib.aclosing(self._streams.answers(requests, answer)) as responses:
            async for response in responses:
                yield response

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: "Context"
    ) -> pb.ModelStatisticsResponse:
        return model_statistics(request, self._registry, self._metrics.statistics)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: "Context"
    ) -> pb.RepositoryIndexResponse:
        return await asyncio.to_thread(index, request, self._registry)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: "Context"
    ) -> pb.RepositoryModelLoadResponse:
        return await self._control.load(request)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: "Context"
    ) -> pb.RepositoryModelUnloadResponse:
        return await self._control.unload(request)

    def _described(self, name: str, version: str) -> LiveModel:
        """Without a number the stable one, also beside a canary: two questions in a row are about the same model."""
        return self._registry.find(name, version_of(version), STABLE)

    def _serves(self, target: Target) -> bool:
        try:
            self._classifier.find(target)
        except AntherError:  # whatever keeps it from answering, now it does not
            return False
        return True

    async def _stream_item(self, context: "Context", request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
        """Counted here: a stream's items are what calls are elsewhere. Raises `Draining`, which ends the stream."""
        started, code = time.perf_counter(), "CANCELLED"
        try:
            response = await self._inference.answer(request, context.time_remaining(), patient=True)
            code = "OK"
        except asyncio.CancelledError:
            code = departure(context)
            raise
        except Draining:
            code = "UNAVAILABLE"
            raise
        except Exception as exc:
            status = noted(exc, self._metrics)
            code = status.code.name
            failed = pb.ModelInferResponse(id=request.id)
            return pb.ModelStreamInferResponse(error_message=status.message, infer_response=failed)
        finally:
            model = answering.get() or self._registry.named(request.model_name)
            labels = model.labels if model else ("", "")
            self._metrics.finished(*labels, "ModelStreamInfer", code, time.perf_counter() - started)
        response.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)
