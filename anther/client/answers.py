"""What a client is answered, as records: no message of the wire is seen outside."""

from dataclasses import dataclass, field

from anther.v1 import classifier_pb2 as pb


@dataclass(frozen=True)
class Prediction:
    """A class, its position in the model's output, and its calibrated probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """Predictions, most probable first; `timings` are seconds per stage as the server measured them.

    `confident` says that the top probability reaches the model's threshold; `provider` is what the answer was computed
    on, such as "CPUExecutionProvider".
    """

    model: str
    version: int
    provider: str
    confident: bool
    predictions: tuple[Prediction, ...]
    timings: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """Why one class of an image is as probable as it is.

    `evidence` has a row of numbers for each row of the image's parts, from the top left: what each part adds to the
    class's logit. Their mean plus a bias, which is the same for every image, is `logit`. `overlay_png` is a PNG file of
    the image as the model saw it, the evidence drawn over it.
    """

    classification: Classification
    explained: Prediction
    evidence: tuple[tuple[float, ...], ...]
    logit: float
    overlay_png: bytes


@dataclass(frozen=True)
class ModelMetrics:
    """What was measured at training, on `photos` photos that the model never saw; `top1_interval` covers 95 %."""

    photos: int
    top1: float
    top1_interval: tuple[float, float]


@dataclass(frozen=True)
class ModelDescription:
    """A version in service. `labels` are in output order; an answer is confident from `threshold` on.

    `sha256` is the digest of the model's file, `manifest_json` the bundle's whole manifest.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    architecture: str
    precision: str
    provider: str
    sha256: str
    threshold: float
    metrics: ModelMetrics
    manifest_json: str = field(repr=False)


def classification_of(response: pb.ClassifyResponse) -> Classification:
    timings = response.timings
    return Classification(
        response.model,
        response.version,
        response.execution_provider,
        response.confident,
        tuple(_prediction(found) for found in response.predictions),
        {field.name: getattr(timings, field.name) for field in timings.DESCRIPTOR.fields},
    )


def explanation_of(response: pb.ExplainResponse) -> Explanation:
    found = response.evidence
    starts = range(0, found.height * found.width, found.width or 1)
    evidence = tuple(tuple(found.values[start : start + found.width]) for start in starts)
    explained = _prediction(response.explained)
    return Explanation(classification_of(response.answer), explained, evidence, found.logit, response.overlay_png)


def description_of(found: pb.ModelDescription) -> ModelDescription:
    measured = found.test_metrics
    return ModelDescription(
        found.name,
        found.version,
        tuple(found.labels),
        found.architecture,
        found.precision,
        found.execution_provider,
        found.sha256,
        found.threshold,
        ModelMetrics(measured.photos, measured.top1, (measured.top1_low, measured.top1_high)),
        found.manifest_json,
    )


def _prediction(found: pb.Prediction) -> Prediction:
    return Prediction(found.label, found.index, found.probability)
