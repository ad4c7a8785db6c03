"""`anther.v1.ImageClassifier`: wire in, domain call, wire out."""

import time

import grpc

from service.classifier import Answer, Classifier, Request, Target
from service.metrics import Metrics
from service.registry import LiveModel
from service.rpc.pb.anther.v1 import classifier_pb2 as pb
from service.rpc.pb.anther.v1.classifier_pb2_grpc import ImageClassifierServicer


class Servicer(ImageClassifierServicer):
    """Errors are left to `observed`."""

    def __init__(self, classifier: Classifier, metrics: Metrics) -> None:
        self._classifier = classifier
        self._metrics = metrics

    async def Classify(  # noqa: N802 - the name is the protocol's
        self, request: pb.ClassifyRequest, context: "grpc.aio.ServicerContext[pb.ClassifyRequest, pb.ClassifyResponse]"
    ) -> pb.ClassifyResponse:
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        target = Target(request.model, request.version)
        answer = await self._classifier.classify(Request(request.image, target, request.top_k, deadline))
        self._metrics.answered(answer)
        return _response(answer)

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002 - it has no fields
        context: "grpc.aio.ServicerContext[pb.ListModelsRequest, pb.ListModelsResponse]",  # noqa: ARG002
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[_description(model) for model in self._classifier.registry.live()])

    async def GetModel(  # noqa: N802
        self,
        request: pb.GetModelRequest,
        context: "grpc.aio.ServicerContext[pb.GetModelRequest, pb.GetModelResponse]",  # noqa: ARG002
    ) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=_description(self._classifier.registry.find(request.model, request.version)))


def _response(answer: Answer) -> pb.ClassifyResponse:
    timings = answer.timings
    return pb.ClassifyResponse(
        model=answer.model.name,
        version=answer.model.version,
        execution_provider=answer.model.engine.provider,
        predictions=[
            pb.Prediction(label=found.label, index=found.index, probability=found.probability)
            for found in answer.predictions
        ],
        confident=answer.confident,
        timings=pb.Timings(
            queue=timings.queue,
            decode=timings.decode,
            preprocess=timings.preprocess,
            inference=timings.inference,
            postprocess=timings.postprocess,
        ),
    )


def _description(model: LiveModel) -> pb.ModelDescription:
    manifest = model.bundle.manifest
    low, high = manifest.metrics.top1_interval
    return pb.ModelDescription(
        name=model.name,
        version=model.version,
        labels=manifest.labels,
        architecture=manifest.model.architecture,
        precision=manifest.model.precision,
        execution_provider=model.engine.provider,
        sha256=manifest.files[manifest.model.file],
        threshold=manifest.calibration.threshold,
        test_metrics=pb.TestMetrics(
            photos=manifest.metrics.n, top1=manifest.metrics.top1, top1_low=low, top1_high=high
        ),
        manifest_json=manifest.to_json(),
    )
