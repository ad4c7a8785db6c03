"""The shadow: a version on trial that gets copies of answered requests. Its answers are compared with the live ones.

No caller waits for it. It computes in a process of its own, one image at a time, and only while a core is idle. A copy
that finds the queue full is dropped and counted.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Pixels
from bundle.repository import Bundle
from service.core.answers import AnyAnswer
from service.core.requests import AnyRequest, ImageRequest, PixelsRequest
from service.core.shadow_worker import ShadowWorkerFailed
from service.versions.loader import LiveModel
from service.versions.registry import Registry

log = logging.getLogger(__name__)

Outcome = Literal["agree", "disagree", "failed", "dropped"]
Tell = Callable[[LiveModel, Outcome, float | None], None]
"""The shadow, how its copy of a request went, and the largest difference of a probability where it was computed."""

_MAX_COPIES, _MAX_BYTES = 8, 32 * 2**20  # that wait; more would only be older when their turn comes
_QUIET_S = 60.0  # without copies, its process ends
_POLL_S = 0.005  # between checks for an idle core


class Computer(Protocol):
    """`service.core.shadow_worker.ShadowWorker`."""

    def compute(self, bundle: Bundle, image: bytes | Pixels) -> npt.NDArray[np.float32]: ...

    def rest(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Copy:
    shadow: LiveModel
    image: bytes | Pixels  # encoded, or uint8 [H, W, 3]
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]  # [C], the live answer's

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


class Shadow:
    """The event loop's thread calls `copy`; that thread and the shadow's own call `tell`.

    `spare` says whether a core is idle. Low priority alone is not enough: its work counts against a container's quota.
    """

    def __init__(self, registry: Registry, computer: Computer, tell: Tell, spare: Callable[[], bool]) -> None:
        self._registry = registry
        self._computer = computer
        self._tell = tell
        self._spare = spare
        self._copies: SimpleQueue[_Copy | None] = SimpleQueue()  # unlike `queue.Queue` it never has the caller wait
        self._bytes_in = self._bytes_out = 0  # each written by one thread alone
        self._closed = False
        self._failed = ("", "")  # the version that last failed
        self._thread = threading.Thread(target=self._run, name="shadow")

    def start(self) -> None:
        self._thread.start()

    def copy(self, request: AnyRequest, answer: AnyAnswer) -> None:
        """Queue the same images for the shadow of the model that answered, if it has one.

        Pixels of another size than the shadow takes are left out. It raises nothing: the request has its answer.
        """
        try:
            self._copy(request, answer)
        except Exception:
            log.exception("a request of %s could not be copied for its shadow", answer.model.name)

    def _copy(self, request: AnyRequest, answer: AnyAnswer) -> None:
        route = self._registry.route(answer.model.name)
        if route is None or route.shadow is None:
            return
        shadow = route.shadowing(request.id)
        if shadow is None or shadow is answer.model:
            return
        side = shadow.bundle.manifest.preprocessing.crop
        if isinstance(request, PixelsRequest) and request.pixels.shape[1:3] != (side, side):
            return
        images = [request.image] if isinstance(request, ImageRequest) else request.pixels
        labels = answer.model.bundle.manifest.labels
        for image, probabilities in zip(images, answer.outputs.probabilities, strict=True):
            self._offer(_Copy(shadow, image, labels, probabilities))

    def _offer(self, copy: _Copy) -> None:
        waiting = self._bytes_in - self._bytes_out
        if self._copies.qsize() >= _MAX_COPIES or waiting + copy.size > _MAX_BYTES:
            self._tell(copy.shadow, "dropped", None)
            return
        self._bytes_in += copy.size
        if not isinstance(copy.image, bytes):  # a row must not keep its whole request in memory
            copy = dataclasses.replace(copy, image=copy.image.copy())
        self._copies.put(copy)

    def close(self) -> None:
        """Drop what waits, and end the thread and the process."""
        self._closed = True
        self._computer.close()
        if self._thread.ident is not None:
            self._copies.put(None)
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            try:
                copy = self._copies.get(timeout=_QUIET_S)
            except Empty:
                self._computer.rest()
                continue
            if copy is not None:
                self._bytes_out += copy.size
                self._await_spare_core()
                self._tried(copy)
            del copy  # a shadow that waits holds no model
        self._computer.rest()

    def _await_spare_core(self) -> None:
        while not self._closed and not self._spare():
            time.sleep(_POLL_S)

    def _tried(self, copy: _Copy) -> None:
        try:
            self._compare(copy)
        except Exception as exc:  # whatever it was, the thread lives on: else every later copy would be dropped
            self._note_failure(copy.shadow, exc)

    def _compare(self, copy: _Copy) -> None:
        found = self._computer.compute(copy.shadow.bundle, copy.image)
        labels = copy.shadow.bundle.manifest.labels
        agree = labels[int(found.argmax())] == copy.labels[int(copy.probabilities.argmax())]
        difference = _largest_difference(dict(zip(labels, found.tolist(), strict=True)), copy)
        self._tell(copy.shadow, "agree" if agree else "disagree", difference)

    def _note_failure(self, shadow: LiveModel, error: Exception) -> None:
        """Log the first failure of a version, with a trace if it is unforeseen; count the others."""
        if not self._closed and self._failed != shadow.labels:
            trace = None if isinstance(error, ShadowWorkerFailed) else error
            text = "the shadow %s/%s failed: %s; further failures are only counted"
            log.warning(text, *shadow.labels, error, exc_info=trace)
        self._failed = shadow.labels
        self._tell(shadow, "failed", None)


def _largest_difference(found: dict[str, float], copy: _Copy) -> float:
    """Over the classes of both versions; a class that only one of them knows has probability 0 in the other."""
    live = dict(zip(copy.labels, copy.probabilities.tolist(), strict=True))
    differences: list[float] = [abs(found.get(label, 0.0) - live.get(label, 0.0)) for label in {*found, *live}]
    return max(differences)
