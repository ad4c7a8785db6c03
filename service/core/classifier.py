"""The life of a request, of every kind and protocol: admit, decode and preprocess, infer, rank, record.

The edge resolves the version with `find` and passes it on, so a request counts for the version that answered it.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Limits
from service.core.answers import Answer, AnyAnswer, Explanation, PixelsAnswer
from service.core.recorder import Recorder
from service.core.requests import AnyRequest, ImageRequest, PixelsRequest, Target
from service.core.work import ExplainWork, ImageWork, PixelsWork, joined
from service.errors import DeadlineExpired, Draining, InvalidArgument, NoEvidence, QueueFull
from service.scheduling.scheduler import Scheduler, Work
from service.versions.loader import LiveModel
from service.versions.registry import Registry

T = TypeVar("T")

Copy = Callable[[AnyRequest, AnyAnswer], None]
"""Called with each answered request and its answer."""


def _nobody(request: AnyRequest, answer: AnyAnswer) -> None:
    """No shadow wants copies."""


class Classifier:
    """Answers requests; refuses new ones once it is draining.

    A request with an event `placed` is patient: where the queue is full it waits for its place, and the event is set
    when it has one. It meets `QueueFull` only where even the empty queue is too small for it, `DeadlineExpired` where
    no place came in time, and `Draining` where the server stopped meanwhile.
    """

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        limits: Limits,
        recorder: Recorder | None = None,
        copy: Copy = _nobody,
    ) -> None:
        self.registry = registry
        self.limits = limits
        self._scheduler = scheduler
        self._recorder = recorder or Recorder(())
        self._copy = copy
        self._draining = False

    def find(self, target: Target) -> LiveModel:
        """The version that answers. Raises `Draining`, `InvalidArgument` and what `Registry.find` raises."""
        if self._draining:
            raise Draining
        target.check()
        return self.registry.find(target.model, target.version, target.label, target.id)

    async def classify(self, model: LiveModel, request: ImageRequest, placed: asyncio.Event | None = None) -> Answer:
        """Raises `InvalidArgument`, `ImageRefused` and what `Scheduler.submit` raises."""
        _check_top_k(request)
        (answer,) = await self._run(lambda: [ImageWork(model, request, self.limits)], request.deadline, placed)
        self._answered(request, answer)
        return answer

    async def classify_all(
        self, model: LiveModel, requests: Sequence[ImageRequest], placed: asyncio.Event | None = None
    ) -> list[Answer]:
        """One answer for each request, or none: the first failure cancels the rest. All have the same deadline.

        Raises as `classify` does; `ImageRefused` says at which index.
        """

        def works() -> list[ImageWork]:
            return [ImageWork(model, request, self.limits, index) for index, request in enumerate(requests)]

        for request in requests:
            _check_top_k(request)
        answers = await self._run(works, requests[0].deadline, placed)
        for request, answer in zip(requests, answers, strict=True):
            self._recorder.answered(answer, request.trace)
        for request, answer in zip(requests, answers, strict=True):
            self._copy(request, answer)
        return answers

    async def infer(
        self, model: LiveModel, request: PixelsRequest, placed: asyncio.Event | None = None
    ) -> PixelsAnswer:
        """Rows of pixels, in batches as large as the device takes. Raises as `classify` does."""
        _check_pixels(request.pixels, model)
        largest = model.engine.batch_sizes[-1]
        parts = [request.pixels[start : start + largest] for start in range(0, len(request.pixels), largest)]

        def works() -> list[PixelsWork]:
            return [PixelsWork(model, part, request.deadline, request.evidence, request.caller) for part in parts]

        answer = joined(await self._run(works, request.deadline, placed))
        self._answered(request, answer)
        return answer

    async def explain(self, model: LiveModel, request: ImageRequest, wanted: int | str | None = None) -> Explanation:
        """Explain the class with that index or label; None is the most probable class.

        Raises `NoEvidence`, and as `classify` does.
        """
        if not model.bundle.manifest.model.evidence:
            raise NoEvidence(model.name, model.version)
        _check_top_k(request)
        index = None if wanted is None else _index(model.bundle.manifest.labels, wanted)
        request = dataclasses.replace(request, evidence=True)
        (explanation,) = await self._run(lambda: [ExplainWork(model, request, self.limits, index)], request.deadline)
        self._answered(request, explanation)
        return explanation

    def drain(self) -> None:
        """Refuse new requests from now on, and those that still wait for a place; accepted ones finish."""
        self._draining = True

    def _answered(self, request: AnyRequest, answer: AnyAnswer) -> None:
        self._recorder.answered(answer, request.trace)
        self._copy(request, answer)

    async def _run(
        self, works: Callable[[], Sequence[Work[T]]], deadline: float | None, placed: asyncio.Event | None = None
    ) -> list[T]:
        """The results in order. The first failure cancels the rest."""
        if placed is None:
            return await _results(self._submit(works()))
        began = time.monotonic()
        while True:
            futures = await self._wait_for_place(works, deadline, began)
            placed.set()
            try:
                return await _results(futures)
            except QueueFull as full:  # it lost its place to a caller who held less
                retry_after_s = full.retry_after_s
            await self._pause(retry_after_s, deadline, began)

    async def _wait_for_place(
        self, works: Callable[[], Sequence[Work[T]]], deadline: float | None, began: float
    ) -> list["asyncio.Future[T]"]:
        """`works` makes new work for every try: what was cancelled may still be in a scheduler's thread."""
        while True:
            nobody_waits = self._scheduler.waiting == 0
            try:
                return self._submit(works())
            except QueueFull as full:
                if nobody_waits:
                    raise
                retry_after_s = full.retry_after_s
            await self._pause(retry_after_s, deadline, began)

    async def _pause(self, seconds: float, deadline: float | None, began: float) -> None:
        """Raises `Draining`, and `DeadlineExpired` of a request that began to wait at `began`."""
        left_s = seconds if deadline is None else deadline - time.monotonic()
        await asyncio.sleep(max(0.0, min(seconds, left_s)))
        if self._draining:
            raise Draining
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExpired(time.monotonic() - began)

    def _submit(self, works: Sequence[Work[T]]) -> list["asyncio.Future[T]"]:
        """All of them or none."""
        futures: list[asyncio.Future[T]] = []
        try:
            futures.extend(self._scheduler.submit(work) for work in works)
        except BaseException:
            _cancel(futures)
            raise
        return futures


async def _results(futures: list["asyncio.Future[T]"]) -> list[T]:
    """In order. The first failure cancels the rest."""
    if len(futures) == 1:
        return [await futures.pop()]
    try:
        return list(await asyncio.gather(*futures))
    except BaseException:
        _cancel(futures)
        raise


def _cancel(futures: list["asyncio.Future[T]"]) -> None:
    """The list is emptied: an error's trace holds it, and a future in it holds the error."""
    while futures:
        futures.pop().cancel()


def _check_top_k(request: ImageRequest) -> None:
    if request.top_k < 0:
        raise InvalidArgument("top_k", request.top_k, "0 (for the default) or more")


def _check_pixels(pixels: npt.NDArray[np.uint8], model: LiveModel) -> None:
    side = model.bundle.manifest.preprocessing.crop
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3) or len(pixels) == 0:
        found = f"{pixels.dtype} {list(pixels.shape)}"
        raise InvalidArgument("pixels", found, f"uint8 [N, {side}, {side}, 3] with N of 1 or more")


def _index(labels: tuple[str, ...], wanted: int | str) -> int:
    if isinstance(wanted, str):
        if wanted not in labels:
            raise InvalidArgument("class_label", wanted, f"one of {', '.join(labels)}")
        return labels.index(wanted)
    if not 0 <= wanted < len(labels):
        raise InvalidArgument("class_index", wanted, f"0 to {len(labels) - 1}")
    return wanted
