"""`anther.v1.ImageClassifier`: wire in, domain call, wire out."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierServicer
from service.core.classifier import Classifier, Target
from service.core.explain import explain
from service.metrics import Metrics
from service.rpc.messages import description, explanation, request_of, response
from service.rpc.stream import Stream, Streams
from service.versions.routes import STABLE


class Servicer(ImageClassifierServicer):
    """Errors are left to `observed`."""

    def __init__(self, classifier: Classifier, metrics: Metrics, streams: Streams) -> None:
        self._classifier = classifier
        self._metrics = metrics
        self._streams = streams

    async def Classify(  # noqa: N802 - the name is the protocol's
        self, request: pb.ClassifyRequest, context: "grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyResponse]"
    ) -> pb.ClassifyResponse:
        answer = await self._classifier.classify(request_of(request, _deadline(context)))
        self._metrics.answered(answer)
        return response(answer, request.id)

    def ClassifyStream(  # noqa: N802
        self,
        requests: AsyncIterator[pb.ClassifyRequest],
        context: "grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyStreamResponse]",
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        return Stream(self._streams, _deadline(context)).answers(requests)

    async def Explain(  # noqa: N802
        self, request: pb.ExplainRequest, context: "grpc.aio.ServicerContext[pb.ExplainRequest, pb.ExplainResponse]"
    ) -> pb.ExplainResponse:
        named = request.WhichOneof("explained")
        wanted = None if named is None else getattr(request, named)
        found = await explain(self._classifier, request_of(request, _deadline(context)), wanted)
        self._metrics.answered(found)
        return explanation(found, request.id)

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: "grpc.aio.ServicerContext[pb.ListModelsRequest, pb.ListModelsResponse]",  # noqa: ARG002
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[description(model) for model in self._classifier.registry.live()])

    async def GetModel(  # noqa: N802
        self,
        request: pb.GetModelRequest,
        context: "grpc.aio.ServicerContext[pb.GetModelRequest, pb.GetModelResponse]",  # noqa: ARG002
    ) -> pb.GetModelResponse:
        target = Target(request.model, request.version, request.label or STABLE)
        return pb.GetModelResponse(model=description(self._classifier.find(target)))


def _deadline(context: "grpc.aio.ServicerContext[Any, Any]") -> float | None:
    """In seconds of `time.monotonic`."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
