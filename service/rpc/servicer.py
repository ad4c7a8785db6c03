"""`anther.v1.ImageClassifier`: wire in, domain call, wire out. Errors are left to `instrumented`."""
# ruff: noqa: N802, ARG002 - methods have the protocol's names, and every handler takes the same arguments

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator

from anther.v1 import classifier_pb2 as pb
from service.core.call import Call
from service.core.classifier import Classifier
from service.core.requests import LONGEST_ID, Target
from service.core.streams import BoundedStreams
from service.edge.calls import Calls, Method
from service.rpc.messages import description, explanation, item_error, request_of, response
from service.rpc.status import status_of
from service.versions.loader import LiveModel
from service.versions.routes import STABLE

Request = pb.ClassifyRequest | pb.ExplainRequest | pb.ListModelsRequest | pb.GetModelRequest


class Servicer:
    def __init__(self, classifier: Classifier, calls: Calls, streams: BoundedStreams) -> None:
        self._classifier = classifier
        self._calls = calls
        self._streams = streams
        self._streamed = Method("ClassifyStream", self.resolve, self._classify_streamed, streamed=True)

    def resolve(self, request: Request) -> LiveModel | None:
        """The version that answers; None for `ListModels`. Raises what `Classifier.find` raises."""
        if isinstance(request, pb.ListModelsRequest):
            return None
        if isinstance(request, pb.GetModelRequest):
            return self._classifier.find(Target(request.model, request.version, request.label or STABLE))
        return self._classifier.find(Target(request.model, request.version, request.label, request.id))

    async def Classify(self, request: pb.ClassifyRequest, model: LiveModel, call: Call) -> pb.ClassifyResponse:
        return response(await self._classifier.classify(model, request_of(request, call)), request.id)

    def ClassifyStream(
        self, requests: AsyncIterator[pb.ClassifyRequest], call: Call
    ) -> AsyncGenerator[pb.ClassifyStreamResponse, None]:
        return self._streams.answers(requests, functools.partial(self._stream_item, call), in_order=False)

    async def Explain(self, request: pb.ExplainRequest, model: LiveModel, call: Call) -> pb.ExplainResponse:
        named = request.WhichOneof("explained")
        wanted = None if named is None else getattr(request, named)
        found = await self._classifier.explain(model, request_of(request, call), wanted)
        return explanation(found, request.id)

    async def ListModels(self, request: pb.ListModelsRequest, model: None, call: Call) -> pb.ListModelsResponse:
        seen = [live for live in self._classifier.registry.live() if call.caller.may_ask(live.name)]
        return pb.ListModelsResponse(models=map(description, seen))

    async def GetModel(self, request: pb.GetModelRequest, model: LiveModel, call: Call) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=description(model))

    async def _classify_streamed(
        self, request: pb.ClassifyRequest, model: LiveModel, call: Call, placed: asyncio.Event
    ) -> pb.ClassifyResponse:
        answer = await self._classifier.classify(model, request_of(request, call), placed)
        return response(answer, request.id)

    async def _stream_item(
        self, call: Call, request: pb.ClassifyRequest, placed: asyncio.Event
    ) -> pb.ClassifyStreamResponse:
        try:
            answer = await self._calls.run(self._streamed, request, call, placed)
        except Exception as exc:  # recorded, and logged where nobody foresaw it
            return pb.ClassifyStreamResponse(id=request.id[:LONGEST_ID], error=item_error(status_of(exc)))
        return pb.ClassifyStreamResponse(id=request.id, answer=answer)
