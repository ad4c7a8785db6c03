"""A version on trial that answers nobody: it gets copies of answered requests, and its answer is compared with theirs.

It delays nobody: its thread runs only where no other wants the processor, and a copy that finds the queue full is
dropped and counted.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Limits
from service import priority
from service.classifier import Answer, PictureWork, Request
from service.loader import LiveModel
from service.registry import Registry

log = logging.getLogger(__name__)

Outcome = Literal["agree", "disagree", "failed", "dropped"]
Tell = Callable[[LiveModel, Outcome, float | None], None]
"""The shadow, how its copy of a request went, and the largest difference of a probability where it was computed."""

_MOST_COPIES, _MOST_BYTES = 8, 32 * 2**20  # that wait; more would only be older when their turn comes


@dataclass(frozen=True, slots=True)
class _Copy:
    shadow: LiveModel
    request: Request
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]  # [C], the live answer's

    @property
    def size(self) -> int:
        return len(self.request.image)


class Shadow:
    """`copy` is called from one thread, the event loop's; `tell` from it and from the shadow's own."""

    def __init__(self, registry: Registry, limits: Limits, tell: Tell) -> None:
        self._registry = registry
        self._limits = limits
        self._tell = tell
        self._copies: SimpleQueue[_Copy | None] = SimpleQueue()  # unlike `queue.Queue` it never has the caller wait
        self._bytes_in = self._bytes_out = 0  # each written by one thread alone
        self._closed = False
        self._failed = ("", "")  # the version that last failed
        self._thread = threading.Thread(target=self._run, name="shadow")

    def start(self) -> None:
        self._thread.start()

    def copy(self, request: Request, answer: Answer) -> None:
        """Have the shadow of the model that answered, if it has one, compute the same picture some time."""
        route = self._registry.route(answer.model.name)
        if route is None or route.shadow is None:
            return
        shadow = route.shadowing(request.target.id)
        if shadow is None or shadow is answer.model:
            return
        waiting = self._bytes_in - self._bytes_out
        if self._copies.qsize() >= _MOST_COPIES or waiting + len(request.image) > _MOST_BYTES:
            self._tell(shadow, "dropped", None)
            return
        self._bytes_in += len(request.image)
        labels = answer.model.bundle.manifest.labels
        self._copies.put(_Copy(shadow, request, labels, answer.outputs.probabilities[0]))

    def close(self) -> None:
        """What waits is let go."""
        if self._thread.ident is not None:
            self._closed = True
            self._copies.put(None)
            self._thread.join()

    def _run(self) -> None:
        priority.idle()
        while (copy := self._copies.get()) is not None and not self._closed:
            self._bytes_out += copy.size
            self._compare(copy)
            del copy  # a shadow that waits holds no model

    def _compare(self, copy: _Copy) -> None:
        try:
            found = self._compute(copy)
        except Exception as exc:
            self._note_failure(copy.shadow, exc)
            self._tell(copy.shadow, "failed", None)
            return
        labels = copy.shadow.bundle.manifest.labels
        agree = labels[int(found.argmax())] == copy.labels[int(copy.probabilities.argmax())]
        difference = _largest_difference(dict(zip(labels, found.tolist(), strict=True)), copy)
        self._tell(copy.shadow, "agree" if agree else "disagree", difference)

    def _note_failure(self, shadow: LiveModel, error: Exception) -> None:
        """The first of a version in full; the others are counted."""
        if self._failed != shadow.labels:
            log.warning("the shadow %s/%s failed; further failures are only counted", *shadow.labels, exc_info=error)
        self._failed = shadow.labels

    def _compute(self, copy: _Copy) -> npt.NDArray[np.float32]:
        work = PictureWork(copy.shadow, copy.request, self._limits)
        probabilities: npt.NDArray[np.float32] = copy.shadow.engine.run((work.prepare(),)).probabilities[0]
        return probabilities


def _largest_difference(found: dict[str, float], copy: _Copy) -> float:
    """Over the classes of both: a version may have learned one that the other does not know, which is 0 there."""
    live = dict(zip(copy.labels, copy.probabilities.tolist(), strict=True))
    differences: list[float] = [abs(found.get(label, 0.0) - live.get(label, 0.0)) for label in {*found, *live}]
    return max(differences)
