"""What a caller gets: ranked classes, the model's outputs, and the time that each stage took."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Pixels
from service.engines.engine import Outputs
from service.scheduling.scheduler import RunTiming
from service.versions.loader import LiveModel


@dataclass(frozen=True, slots=True)
class Prediction:
    label: str
    index: int
    probability: float


class Top(NamedTuple):
    """The most probable class of one image; `confident` where it reaches the model's threshold."""

    prediction: Prediction
    confident: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each stage. `decode` and `preprocess` are None where the caller sent pixels."""

    queue: float
    decode: float | None
    preprocess: float | None
    inference: float
    postprocess: float


STAGES = tuple(field.name for field in fields(Timings))
"""In the order in which an image goes through them; also the values of the metrics' label `stage`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions for one image, most probable first.

    `outputs` has one row. `pixels` uint8 [crop, crop, 3] is what the model saw, kept where evidence was asked for.
    """

    model: LiveModel
    predictions: tuple[Prediction, ...]
    confident: bool
    timings: Timings
    outputs: Outputs
    run: RunTiming
    pixels: Pixels | None = None

    @property
    def tops(self) -> tuple[Top, ...]:
        return (Top(self.predictions[0], self.confident),)

    @property
    def runs(self) -> tuple[RunTiming, ...]:
        return (self.run,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Answer):
    """An answer, and the evidence for one class.

    `evidence` float32 [h, w]: its mean plus the class's bias, which is the same for every image, is `logit`.
    """

    explained: Prediction
    evidence: npt.NDArray[np.float32]
    logit: float
    overlay_png: bytes


@dataclass(frozen=True, slots=True)
class PixelsAnswer:
    """The model's outputs and top class for each row of pixels.

    `timings` add up the runs that followed one another; `runs` has each of them.
    """

    model: LiveModel
    outputs: Outputs
    tops: tuple[Top, ...]
    timings: Timings
    runs: tuple[RunTiming, ...]


AnyAnswer = Answer | PixelsAnswer
