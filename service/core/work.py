"""One request's way through the scheduler: bytes or pixels before the engine, ranked classes after it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bundle.errors import ImageRefused
from bundle.preprocessing import Examined, Limits, Pixels, examine
from service.core.answers import Answer, Explanation, PixelsAnswer, Prediction, Timings, Top
from service.core.overlay import overlay_png
from service.core.requests import ImageRequest
from service.engines.engine import Engine, Outputs, stacked
from service.scheduling.scheduler import Prepare, Prepared, RunTiming
from service.versions.loader import LiveModel

DEFAULT_TOP_K = 5
T = TypeVar("T")


class ImageWork:
    """Encoded bytes to an `Answer`. `index` is the image's place in its request, None where there is only one."""

    __slots__ = ("_decode_s", "_examined", "_index", "_limits", "_pixels", "_preprocess_s", "_request", "model")

    def __init__(self, model: LiveModel, request: ImageRequest, limits: Limits, index: int | None = None) -> None:
        self.model = model
        self._request = request
        self._limits = limits
        self._index = index
        self._pixels: Pixels | None = None
        self._examined: Examined | None = None
        self._decode_s = 0.0

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

    @property
    def caller(self) -> str:
        return self._request.caller

    def estimate(self) -> float:
        """Raises `ImageRefused`, which names the image's place in its request."""
        return self._examine().seconds

    def prepare(self) -> Pixels:
        """Raises as `estimate` does."""
        examined = self._examine()
        started = time.perf_counter()
        image = self._named(examined.image)
        decoded = time.perf_counter()
        pixels = self.model.bundle.manifest.preprocessing.resize_and_crop(image)
        return self._prepared(Prepared(pixels, decoded - started, time.perf_counter() - decoded))

    def prepare_by(self, prepare: Prepare, /) -> Pixels:
        preprocessing = self.model.bundle.manifest.preprocessing
        return self._prepared(self._named(lambda: prepare(self._request.image, preprocessing)))

    def _examine(self) -> Examined:
        if self._examined is None:
            started = time.perf_counter()
            self._examined = self._named(lambda: examine(self._request.image, self._limits))
            self._decode_s = time.perf_counter() - started
        return self._examined

    def _prepared(self, prepared: Prepared) -> Pixels:
        self._decode_s += prepared.decode
        self._preprocess_s = prepared.preprocess
        if self._request.evidence:
            self._pixels = prepared.pixels
        return prepared.pixels[np.newaxis]

    def _named(self, step: Callable[[], T]) -> T:
        """What the step gives. A refusal says at which place of its request the image stands."""
        try:
            return step()
        except ImageRefused as exc:
            if self._index is None:
                raise
            raise exc.at(self._index) from exc

    def finish(self, outputs: Outputs, run: RunTiming) -> Answer:
        started = time.perf_counter()
        manifest, probabilities = self.model.bundle.manifest, outputs.probabilities[0]
        best = np.argsort(-probabilities, kind="stable")[: self._request.top_k or DEFAULT_TOP_K].tolist()
        predictions = tuple(Prediction(manifest.labels[index], index, float(probabilities[index])) for index in best)
        confident = predictions[0].probability >= manifest.calibration.threshold
        postprocess = time.perf_counter() - started
        timings = Timings(run.queue, self._decode_s, self._preprocess_s, run.inference, postprocess)
        return Answer(self.model, predictions, confident, timings, outputs, run, self._pixels)


class ExplainWork(ImageWork):
    """Encoded bytes to an `Explanation`. It draws on the scheduler's thread: the event loop serves other callers.

    `explained` is the class's index, None for the most probable class. The request asks for evidence.
    """

    __slots__ = ("_explained",)

    def __init__(self, model: LiveModel, request: ImageRequest, limits: Limits, explained: int | None) -> None:
        super().__init__(model, request, limits)
        self._explained = explained

    def finish(self, outputs: Outputs, run: RunTiming) -> Explanation:
        answer = super().finish(outputs, run)
        index = answer.predictions[0].index if self._explained is None else self._explained
        maps, probability = outputs.evidence, float(outputs.probabilities[0, index])
        assert maps is not None
        assert answer.pixels is not None
        # Full strength is the most that any class has, so that drawings of two classes of an image can be compared.
        overlay = overlay_png(answer.pixels, maps[0, index], float(maps.max()))
        return Explanation(
            answer.model,
            answer.predictions,
            answer.confident,
            answer.timings,
            outputs,
            run,
            answer.pixels,
            explained=Prediction(self.model.bundle.manifest.labels[index], index, probability),
            evidence=maps[0, index],
            logit=float(outputs.logits[0, index]),
            overlay_png=overlay,
        )


@dataclass(frozen=True, slots=True)
class PixelsWork:
    """Rows of pixels, at most the engine's largest batch, to a `PixelsAnswer`."""

    model: LiveModel
    pixels: Pixels
    deadline: float | None
    evidence: bool
    caller: str = ""

    @property
    def engine(self) -> Engine:
        return self.model.engine

    @property
    def size(self) -> int:
        return self.pixels.nbytes

    def estimate(self) -> float:
        return 0.0

    def prepare(self) -> Pixels:
        return self.pixels

    def prepare_by(self, _: Prepare, /) -> Pixels:
        return self.pixels

    def finish(self, outputs: Outputs, run: RunTiming) -> PixelsAnswer:
        started = time.perf_counter()
        tops = _tops(self.model, outputs)
        timings = Timings(run.queue, None, None, run.inference, time.perf_counter() - started)
        return PixelsAnswer(self.model, outputs, tops, timings, (run,))


def joined(parts: list[PixelsAnswer]) -> PixelsAnswer:
    """One answer from those of a request's parts, in their order."""
    timings = Timings(
        max(part.timings.queue for part in parts),
        None,
        None,
        sum(part.timings.inference for part in parts),
        sum(part.timings.postprocess for part in parts),
    )
    tops = tuple(top for part in parts for top in part.tops)
    runs = tuple(run for part in parts for run in part.runs)
    return PixelsAnswer(parts[0].model, stacked([part.outputs for part in parts]), tops, timings, runs)


def _tops(model: LiveModel, outputs: Outputs) -> tuple[Top, ...]:
    manifest, probabilities = model.bundle.manifest, outputs.probabilities
    threshold, best = manifest.calibration.threshold, probabilities.argmax(axis=1)
    highest = probabilities[np.arange(len(best)), best]
    return tuple(
        Top(Prediction(manifest.labels[index], index, probability), probability >= threshold)
        for index, probability in zip(best.tolist(), highest.tolist(), strict=True)
    )
