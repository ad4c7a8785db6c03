"""One request for inference: wire in, the core, wire out."""

import asyncio
import time

from anther.open_inference import open_inference_pb2 as pb
from bundle.preprocessing import Pixels
from service.core.call import Call
from service.core.classifier import Classifier
from service.core.requests import ImageRequest, PixelsRequest, Target
from service.edge.calls import Weight
from service.engines.engine import Outputs, stacked
from service.rpc.inference.outputs import EVIDENCE, put, wanted_of
from service.rpc.inference.parameters import options_of, version_of
from service.rpc.inference.tensors import read, takes_long
from service.versions.loader import LiveModel


def target_of(request: pb.ModelInferRequest) -> Target:
    """Raises `InvalidArgument`."""
    label = options_of(request.parameters).label
    return Target(request.model_name, version_of(request.model_version), label, request.id)


class Inference:
    """Answers requests of at most `max_images` images: all of them or none."""

    def __init__(self, classifier: Classifier, max_images: int) -> None:
        self._classifier = classifier
        self._max_images = max_images

    def weigh(self, request: pb.ModelInferRequest) -> Weight:
        """By the shape that the request claims: where it is not what the request has, the request is refused."""
        claimed = max((tensor.shape[0] for tensor in request.inputs if tensor.shape), default=1)
        evidence = any(output.name == EVIDENCE for output in request.outputs)
        return Weight(min(max(1, claimed), self._max_images), evidence)

    async def answer(
        self,
        request: pb.ModelInferRequest,
        model: LiveModel,
        call: Call,
        placed: asyncio.Event | None = None,
    ) -> pb.ModelInferResponse:
        """The request may have an earlier deadline than its call. For `placed` see `Classifier`.

        Raises `InvalidArgument`, `ImageRefused` with the image's index, and what `Classifier.infer` raises.
        """
        deadline, caller = _earlier(call.deadline, options_of(request.parameters).timeout_s), call.caller.key
        wanted = wanted_of(request.outputs, model)
        evidence = any(each.name == EVIDENCE for each in wanted)
        inputs = await self._read(request, model)
        if isinstance(inputs, list):
            images = [ImageRequest(image, 0, deadline, evidence, request.id, caller, call.trace) for image in inputs]
            answers = await self._classifier.classify_all(model, images, placed)
            outputs: Outputs = stacked([answer.outputs for answer in answers])
        else:
            pixels = PixelsRequest(inputs, deadline, evidence, request.id, caller, call.trace)
            outputs = (await self._classifier.infer(model, pixels, placed)).outputs
        response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
        for name, value in request.parameters.items():
            response.parameters[name].CopyFrom(value)
        put(response, outputs, wanted, model, raw=len(request.raw_input_contents) > 0)
        return response

    async def _read(self, request: pb.ModelInferRequest, model: LiveModel) -> list[bytes] | Pixels:
        side = model.bundle.manifest.preprocessing.crop
        if takes_long(request):
            return await asyncio.to_thread(read, request, side, self._max_images)
        return read(request, side, self._max_images)


def _earlier(deadline: float | None, timeout_s: float | None) -> float | None:
    """The earlier of the call's deadline and the request's, in seconds of `time.monotonic`."""
    if timeout_s is None:
        return deadline
    own = time.monotonic() + timeout_s
    return own if deadline is None else min(deadline, own)
