"""The hot path: an encoded picture to ranked classes, timed stage by stage."""

import time
from dataclasses import dataclass

import numpy as np

from bundle.preprocessing import Limits, decode
from service.errors import Draining, InvalidArgument
from service.lanes import Lanes
from service.registry import LiveModel, Registry

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Request:
    """`deadline` in seconds of `time.monotonic`; `version` 0 is whichever serves; `top_k` 0 is the default."""

    image: bytes
    model: str = ""
    version: int = 0
    top_k: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent in each stage."""

    queue: float
    decode: float
    preprocess: float
    inference: float
    postprocess: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Predictions, most probable first; `confident` where the first reaches the model's threshold."""

    model: LiveModel
    predictions: tuple[Prediction, ...]
    confident: bool
    timings: Timings


class Classifier:
    """Finds the model, queues the work, and refuses everything once it is draining."""

    def __init__(self, registry: Registry, lanes: Lanes, limits: Limits) -> None:
        self.registry = registry
        self._lanes = lanes
        self._limits = limits
        self._draining = False

    async def classify(self, request: Request) -> Answer:
        """Answer one request. Raises `ImageRefused` and what `Registry.find` and `Lanes.submit` raise."""
        if self._draining:
            raise Draining
        if request.top_k < 0:
            raise InvalidArgument("top_k", request.top_k, "0 (for the default) or more")
        model = self.registry.find(request.model, request.version)
        return await self._lanes.submit(
            lambda queued_s: _answer(model, request, self._limits, queued_s), len(request.image), request.deadline
        )

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones finish."""
        self._draining = True


def _answer(model: LiveModel, request: Request, limits: Limits, queued_s: float) -> Answer:
    manifest = model.bundle.manifest
    started = time.perf_counter()
    picture = decode(request.image, limits)
    decoded = time.perf_counter()
    pixels = manifest.preprocessing.resize_and_crop(picture)
    preprocessed = time.perf_counter()
    probabilities = model.engine.run(pixels[np.newaxis])[0][0]
    inferred = time.perf_counter()
    best = np.argsort(-probabilities, kind="stable")[: request.top_k or DEFAULT_TOP_K].tolist()
    predictions = tuple(Prediction(manifest.labels[index], index, float(probabilities[index])) for index in best)
    confident = predictions[0].probability >= manifest.calibration.threshold
    ended = time.perf_counter()
    timings = Timings(queued_s, decoded - started, preprocessed - decoded, inferred - preprocessed, ended - inferred)
    return Answer(model, predictions, confident, timings)
