"""One request for inference: wire in, the classifier, wire out."""

import asyncio
import secrets
import time
from dataclasses import dataclass

import numpy as np

from anther.open_inference import open_inference_pb2 as pb
from bundle.errors import ImageRefused
from bundle.preprocessing import Limits, Pixels
from service.core.classifier import Answer, Classifier, PictureWork, PixelsRequest, Request, Target
from service.engines.engine import Outputs
from service.errors import DeadlineExpired, QueueFull
from service.metrics import Metrics
from service.rpc.inference.outputs import EVIDENCE, Wanted, put, wanted_of
from service.rpc.inference.parameters import options_of, version_of
from service.rpc.inference.tensors import read, takes_long
from service.versions.registry import LiveModel


@dataclass(frozen=True, slots=True)
class _Question:
    """A request, understood."""

    target: Target
    model: LiveModel
    wanted: tuple[Wanted, ...]
    deadline: float | None

    @property
    def evidence(self) -> bool:
        return any(each.name == EVIDENCE for each in self.wanted)


class Inference:
    """Answers requests of at most `most` pictures: all of them or none."""

    def __init__(self, classifier: Classifier, metrics: Metrics, most: int) -> None:
        self._classifier = classifier
        self._metrics = metrics
        self._most = most

    async def answer(
        self, request: pb.ModelInferRequest, remaining_s: float | None, patient: bool = False
    ) -> pb.ModelInferResponse:
        """Raises `InvalidArgument`, `ImageRefused` with the picture's index, and what `Classifier.infer` raises.

        A `patient` caller meets `QueueFull` only where the empty queue is too small for the request, which is submitted
        again until there is room or its deadline has passed.
        """
        question = self._understood(request, remaining_s)
        inputs = await self._read(request, question.model)
        model, outputs = await (self._in_time(question, inputs) if patient else self._inferred(question, inputs))
        response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=request.id)
        for name, value in request.parameters.items():
            response.parameters[name].CopyFrom(value)
        put(response, outputs, question.wanted, model, raw=len(request.raw_input_contents) > 0)
        return response

    def _understood(self, request: pb.ModelInferRequest, remaining_s: float | None) -> _Question:
        options = options_of(request.parameters)
        # An id for requests that have none: whoever looks the model up twice must not meet the canary only once.
        chosen_by = request.id or secrets.token_hex(8)
        target = Target(request.model_name, version_of(request.model_version), options.label, chosen_by)
        model = self._classifier.find(target)
        wanted = wanted_of(request.outputs, model)
        return _Question(target, model, wanted, _deadline(remaining_s, options.timeout_s))

    async def _read(self, request: pb.ModelInferRequest, model: LiveModel) -> list[bytes] | Pixels:
        side = model.bundle.manifest.preprocessing.crop
        if takes_long(request):
            return await asyncio.to_thread(read, request, side, self._most)
        return read(request, side, self._most)

    async def _in_time(self, question: _Question, inputs: list[bytes] | Pixels) -> tuple[LiveModel, Outputs]:
        began = time.monotonic()
        while True:
            others = self._classifier.waiting
            try:
                return await self._inferred(question, inputs)
            except QueueFull as full:
                if others == 0:
                    raise
                retry_after_s = full.retry_after_s
            await asyncio.sleep(retry_after_s)
            if question.deadline is not None and time.monotonic() >= question.deadline:
                raise DeadlineExpired(time.monotonic() - began)

    async def _inferred(self, question: _Question, inputs: list[bytes] | Pixels) -> tuple[LiveModel, Outputs]:
        if isinstance(inputs, list):
            return await self._pictures(question, inputs)
        return await self._pixels(question, inputs)

    async def _pictures(self, question: _Question, images: list[bytes]) -> tuple[LiveModel, Outputs]:
        requests = [_request(question, image) for image in images]
        if len(requests) == 1:
            answers = [await self._picture(requests[0])]
        else:  # by the version that was found: another may come into service while they are submitted
            limits = self._classifier.limits
            works = [_NumberedWork(index, question.model, each, limits) for index, each in enumerate(requests)]
            answers = await self._classifier.run_all(works)
            for each, answer in zip(requests, answers, strict=True):
                self._classifier.hand_on(each, answer)
        for answer in answers:
            self._metrics.answered(answer)
        return answers[0].model, _stacked(answers)

    async def _picture(self, request: Request) -> Answer:
        try:
            return await self._classifier.classify(request)
        except ImageRefused as exc:
            _number(exc, 0)
            raise

    async def _pixels(self, question: _Question, pixels: Pixels) -> tuple[LiveModel, Outputs]:
        request = PixelsRequest(pixels, question.target, question.deadline, question.evidence)
        answer = await self._classifier.infer(request)
        self._metrics.statistics.ran(answer.model.labels, len(pixels), answer.spent, answer.timings)
        return answer.model, answer.outputs


class _NumberedWork(PictureWork):
    """A picture that knows its place in the request."""

    __slots__ = ("_index",)

    def __init__(self, index: int, model: LiveModel, request: Request, limits: Limits) -> None:
        super().__init__(model, request, limits)
        self._index = index

    def prepare(self) -> Pixels:
        try:
            return super().prepare()
        except ImageRefused as exc:
            _number(exc, self._index)
            raise


def _request(question: _Question, image: bytes) -> Request:
    return Request(image, question.target, deadline=question.deadline, evidence=question.evidence)


def _number(error: ImageRefused, index: int) -> None:
    """Have the sentence and the facts say which picture it is."""
    error.args = (f"image {index}: {error}",)
    error.facts["index"] = str(index)


def _stacked(answers: list[Answer]) -> Outputs:
    rows = [answer.outputs for answer in answers]
    if len(rows) == 1:
        return rows[0]
    evidence = [row.evidence for row in rows if row.evidence is not None]
    return Outputs(
        np.concatenate([row.probabilities for row in rows]),
        np.concatenate([row.logits for row in rows]),
        np.concatenate(evidence) if evidence else None,
    )


def _deadline(remaining_s: float | None, timeout_s: float | None) -> float | None:
    """The earlier of the call's own and the request's, in seconds of `time.monotonic`."""
    limits = [seconds for seconds in (remaining_s, timeout_s) if seconds is not None]
    return time.monotonic() + min(limits) if limits else None
