"""What a client is answered, as records: no message of the wire is seen outside."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anther.v1 import classifier_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Prediction:
    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Classification:
    """Predictions, most probable first; `timings` are seconds per stage as the server measured them."""

    model: str
    version: int
    provider: str
    confident: bool
    predictions: tuple[Prediction, ...]
    timings: dict[str, float]


@dataclass(frozen=True)
class Explanation:
    """Why one class of a picture is as probable as it is.

    `evidence` float32 [h, w] is what each part of the picture adds to the class's logit: its mean plus a bias, which is
    the same for every picture, is `logit`. `overlay_png` is a PNG file of the picture as the model saw it, the evidence
    drawn over it.
    """

    classification: Classification
    explained: Prediction
    evidence: "npt.NDArray[np.float32]"
    logit: float
    overlay_png: bytes


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
    import numpy as np

    found = response.evidence
    evidence = np.array(found.values, np.float32).reshape(found.height, found.width)
    explained = _prediction(response.explained)
    return Explanation(classification_of(response.answer), explained, evidence, found.logit, response.overlay_png)


def _prediction(found: pb.Prediction) -> Prediction:
    return Prediction(found.label, found.index, found.probability)
