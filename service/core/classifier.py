"""The hot path: an encoded picture, or pixels, to ranked classes, timed stage by stage."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Limits, Pixels, decode
from service.engines.engine import Engine, Outputs
from service.errors import Draining, InvalidArgument
from service.scheduling.scheduler import RunTiming, Scheduler, Work
from service.versions.registry import LiveModel, Registry

DEFAULT_TOP_K = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Target:
    """Which model answers: `version` 0 is whichever serves; `label` 'stable' or 'canary' asks for that one; `id` is the
    request's own, by whose hash a canary gets its share.
    """

    model: str = ""
    version: int = 0
    label: str = ""
    id: str = ""


ANY = Target()

answering: ContextVar[LiveModel | None] = ContextVar("answering", default=None)
"""The version that the current request was given to: whatever becomes of the request counts for it."""


@dataclass(frozen=True, slots=True)
class Request:
    """An encoded picture. `deadline` in seconds of `time.monotonic`; `top_k` 0 is the default."""

    image: bytes
    target: Target = ANY
    top_k: int = 0
    deadline: float | None = None
    evidence: bool = False


@dataclass(frozen=True, slots=True)
class PixelsRequest:
    """Pictures that the caller has preprocessed: uint8 [n, crop, crop, 3]."""

    pixels: Pixels
    target: Target = ANY
    deadline: float | None = None
    evidence: bool = False


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
    """Predictions, most probable first; `confident` where the first reaches the model's threshold.

    `outputs` are the model's own, of one row; `spent` tells the engine's run. `pixels` uint8 [crop, crop, 3] is what it
    saw, kept where evidence was asked for.
    """

    model: LiveModel
    predictions: tuple[Prediction, ...]
    confident: bool
    timings: Timings
    outputs: Outputs
    spent: RunTiming
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The model's outputs, a row for each row of pixels. `timings` add up those of the parts that ran one by one, and
    `spent` tells of each.
    """

    model: LiveModel
    outputs: Outputs
    timings: Timings
    spent: tuple[RunTiming, ...]


Copy = Callable[[Request | PixelsRequest, Answer | BatchAnswer], None]


class Classifier:
    """Finds the model, queues the work, and refuses everything once it is draining."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        limits: Limits,
        copy: Copy | None = None,  # is called with each answered request
    ) -> None:
        self.registry = registry
        self.limits = limits
        self._scheduler = scheduler
        self._copy = copy
        self._draining = False

    async def classify(self, request: Request) -> Answer:
        """Answer one picture. Raises `ImageRefused` and what `find` and `Scheduler.submit` raise."""
        model = self.find(request.target)
        if request.top_k < 0:
            raise InvalidArgument("top_k", request.top_k, "0 (for the default) or more")
        answer = await self._scheduler.submit(PictureWork(model, request, self.limits))
        self.hand_on(request, answer)
        return answer

    async def infer(self, request: PixelsRequest) -> BatchAnswer:
        """Answer rows of pixels, in the device's largest batches. Raises as `classify` does."""
        model = self.find(request.target)
        _check_pixels(request.pixels, model)
        largest = model.engine.batch_sizes[-1]
        parts = [request.pixels[start : start + largest] for start in range(0, len(request.pixels), largest)]
        works = [_PixelsWork(model.engine, part, request.deadline, request.evidence) for part in parts]
        answer = _joined(model, await self.run_all(works))
        self.hand_on(request, answer)
        return answer

    async def run_all(self, works: Sequence[Work[T]]) -> list[T]:
        """The results in order. The first failure cancels the rest: half an answer is none."""
        futures: list[asyncio.Future[T]] = []
        try:
            futures.extend(self._scheduler.submit(work) for work in works)
            return list(await asyncio.gather(*futures))
        except BaseException:
            while futures:  # emptied, too: the error's trace holds this list, and one of its futures holds the error
                futures.pop().cancel()
            raise

    @property
    def waiting(self) -> int:
        """Pieces of work before the scheduler."""
        return self._scheduler.waiting

    def hand_on(self, request: Request | PixelsRequest, answer: Answer | BatchAnswer) -> None:
        """Let a shadow have the answered request too."""
        if self._copy is not None:
            self._copy(request, answer)

    def find(self, target: Target) -> LiveModel:
        """The live model for a request. Raises `Draining` and what `Registry.find` raises."""
        if self._draining:
            raise Draining
        model = self.registry.find(target.model, target.version, target.label, target.id)
        answering.set(model)
        return model

    def drain(self) -> None:
        """Refuse new requests from now on; accepted ones finish."""
        self._draining = True


class PictureWork:
    """Encoded bytes to an `Answer`."""

    __slots__ = ("_decoded_s", "_limits", "_pixels", "_preprocessed_s", "_request", "model")

    def __init__(self, model: LiveModel, request: Request, limits: Limits) -> None:
        self.model = model
        self._request = request
        self._limits = limits
        self._pixels: Pixels | None = None

    @property
    def engine(self) -> Engine:
        return self.model.engine

    @property
    def size(self) -> int:
        return len(self._request.image)

    @property
    def deadline(self) -> float | None:
        return self._request.deadline

    @property
    def evidence(self) -> bool:
        return self._request.evidence

    def prepare(self) -> Pixels:
        started = time.perf_counter()
        picture = decode(self._request.image, self._limits)
        decoded = time.perf_counter()
        pixels = self.model.bundle.manifest.preprocessing.resize_and_crop(picture)
        self._decoded_s, self._preprocessed_s = decoded - started, time.perf_counter() - decoded
        if self._request.evidence:
            self._pixels = pixels
        return pixels[np.newaxis]

    def finish(self, outputs: Outputs, spent: RunTiming) -> Answer:
        started = time.perf_counter()
        manifest, probabilities = self.model.bundle.manifest, outputs.probabilities[0]
        best = np.argsort(-probabilities, kind="stable")[: self._request.top_k or DEFAULT_TOP_K].tolist()
        predictions = tuple(Prediction(manifest.labels[index], index, float(probabilities[index])) for index in best)
        confident = predictions[0].probability >= manifest.calibration.threshold
        postprocess = time.perf_counter() - started
        timings = Timings(spent.queue, self._decoded_s, self._preprocessed_s, spent.inference, postprocess)
        return Answer(self.model, predictions, confident, timings, outputs, spent, self._pixels)


@dataclass(frozen=True, slots=True)
class _PixelsWork:
    engine: Engine
    pixels: Pixels
    deadline: float | None
    evidence: bool

    @property
    def size(self) -> int:
        return self.pixels.nbytes

    def prepare(self) -> Pixels:
        return self.pixels

    def finish(self, outputs: Outputs, spent: RunTiming) -> tuple[Outputs, RunTiming]:
        return outputs, spent


def _check_pixels(pixels: npt.NDArray[np.uint8], model: LiveModel) -> None:
    side = model.bundle.manifest.preprocessing.crop
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3) or len(pixels) == 0:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise InvalidArgument("pixels", found, f"uint8 [N, {side}, {side}, 3] with N of 1 or more")


def _joined(model: LiveModel, parts: list[tuple[Outputs, RunTiming]]) -> BatchAnswer:
    outputs, spent = [part for part, _ in parts], tuple(spent for _, spent in parts)
    timings = Timings(max(each.queue for each in spent), 0.0, 0.0, sum(each.inference for each in spent), 0.0)
    return BatchAnswer(model, _stacked(outputs), timings, spent)


def _stacked(parts: list[Outputs]) -> Outputs:
    def stack(pick: Callable[[Outputs], npt.NDArray[np.float32] | None]) -> npt.NDArray[np.float32] | None:
        found = [array for part in parts if (array := pick(part)) is not None]
        return np.concatenate(found) if found else None

    probabilities, logits = stack(lambda part: part.probabilities), stack(lambda part: part.logits)
    assert probabilities is not None
    assert logits is not None
    return Outputs(probabilities, logits, stack(lambda part: part.evidence))
