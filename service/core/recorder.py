"""The one place that is told of every answer and of every request's end; it tells those who count."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.core.answers import AnyAnswer
from service.core.call import Call, Trace
from service.versions.loader import LiveModel
from service.versions.reconcile import Change

Where = tuple[str, str]
"""A model's name and version, as `LiveModel.labels` has them."""

MAX_RETIRED = 8  # versions that left service and are still counted; more would grow with every reload


@dataclass(frozen=True, slots=True)
class End:
    """How a request ended.

    `call` is the call that it came with. `model` is the version that it counts for, None where it asked for no model or
    for an unknown one. `method` is None for a stream as a whole, whose requests end one by one. `reason` is empty for a
    success, and for a request of a stream whose end as a whole has the reason. `inference` tells requests for an answer
    from questions about the server.
    """

    call: Call
    model: LiveModel | None
    method: str | None
    code: str
    seconds: float
    reason: str = ""
    inference: bool = False

    @property
    def where(self) -> Where:
        return self.model.labels if self.model is not None else ("", "")


class Reader(Protocol):
    """Counts answers and ends. The event loop calls it; the thread that follows a model's folder calls `forget`."""

    def answered(self, answer: AnyAnswer, trace_id: str) -> None:
        """`trace_id` is empty where nobody records the request's trace."""
        ...

    def ended(self, end: End) -> None: ...

    def forget(self, where: Where) -> None:
        """The version left service long ago."""
        ...


class Recorder:
    """Passes every answer and every end on to each reader."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = tuple(readers)
        self._retired: deque[Where] = deque()

    def answered(self, answer: AnyAnswer, trace: Trace | None = None) -> None:
        trace_id = ""
        if trace is not None:
            trace.answered(answer)
            trace_id = trace.trace_id
        for reader in self._readers:
            reader.answered(answer, trace_id)

    def ended(self, end: End) -> None:
        for reader in self._readers:
            reader.ended(end)

    def changed(self, change: Change) -> None:
        """Note which versions came and left. The last `MAX_RETIRED` that left stay counted."""
        self._retired.extend(model.labels for model in change.retired)
        for model in change.loaded:
            if model.labels in self._retired:
                self._retired.remove(model.labels)
        while len(self._retired) > MAX_RETIRED:
            oldest = self._retired.popleft()
            for reader in self._readers:
                reader.forget(oldest)
