"""The records of the core as messages of `anther.v1`, and back."""

from anther.v1 import classifier_pb2 as pb
from service.core.answers import Answer, Explanation, Prediction
from service.core.call import Call
from service.core.requests import ImageRequest
from service.rpc.status import Status
from service.versions.loader import LiveModel


def request_of(message: pb.ClassifyRequest | pb.ExplainRequest, call: Call) -> ImageRequest:
    return ImageRequest(
        message.image, message.top_k, call.deadline, id=message.id, caller=call.caller.key, trace=call.trace
    )


def response(answer: Answer, request_id: str) -> pb.ClassifyResponse:
    """The parts as dictionaries: a message of its own for each would cost as much again, and memory of its own."""
    timings = answer.timings
    return pb.ClassifyResponse(
        id=request_id,
        model=answer.model.name,
        version=answer.model.version,
        execution_provider=answer.model.engine.provider,
        predictions=[
            {"label": found.label, "index": found.index, "probability": found.probability}
            for found in answer.predictions
        ],
        confident=answer.confident,
        timings={
            "queue": timings.queue,
            "decode": timings.decode,
            "preprocess": timings.preprocess,
            "inference": timings.inference,
            "postprocess": timings.postprocess,
        },
    )


def item_error(status: Status) -> pb.ItemError:
    return pb.ItemError(
        code=status.code.value[0],
        reason=status.reason,
        message=status.message,
        metadata=status.facts,
        retry_after=status.retry_after_s,
    )


def explanation(found: Explanation, request_id: str) -> pb.ExplainResponse:
    height, width = found.evidence.shape
    return pb.ExplainResponse(
        answer=response(found, request_id),
        explained=_prediction(found.explained),
        evidence=pb.EvidenceMap(height=height, width=width, values=found.evidence.ravel().tolist(), logit=found.logit),
        overlay_png=found.overlay_png,
    )


def description(model: LiveModel) -> pb.ModelDescription:
    manifest, metrics = model.bundle.manifest, model.test_metrics
    low, high = metrics.top1_interval
    return pb.ModelDescription(
        name=model.name,
        version=model.version,
        labels=manifest.labels,
        architecture=manifest.model.architecture,
        precision=model.precision,
        execution_provider=model.engine.provider,
        sha256=model.sha256,
        threshold=manifest.calibration.threshold,
        test_metrics=pb.TestMetrics(photos=metrics.n, top1=metrics.top1, top1_low=low, top1_high=high),
        manifest_json=manifest.to_json(),
    )


def _prediction(found: Prediction) -> pb.Prediction:
    return pb.Prediction(label=found.label, index=found.index, probability=found.probability)
