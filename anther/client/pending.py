"""The images of a stream that have no outcome yet, and when to ask for which of them again.

This is all that the sync and the async exchange decide; it knows neither calls nor threads nor an event loop.
"""

import heapq
import logging
import time

from anther.backoff import Backoff
from anther.client.call_failed import CallFailed, from_item
from anther.v1 import classifier_pb2 as pb

log = logging.getLogger(__name__)

Request = pb.ClassifyRequest
Answer = pb.ClassifyResponse
Outcome = Answer | CallFailed
Event = pb.ClassifyStreamResponse | CallFailed  # an item, or why the stream ended

WINDOW = 64  # enough to keep a large GPU busy; most wait in gRPC's buffers until the server reads on
_WINDOW_BYTES = 64 * 2**20  # however large the images, no more of them than this and one are held
_FIRST_WAIT_S, _MAX_WAIT_S = 0.1, 5.0
_BROKEN = ("UNAVAILABLE", "CANCELLED")  # the latter is how gRPC ends what crosses a server's closing


class Pending:
    """`timeout_s` is how long an answer may take, `patience_s` how long a server that has answered may be away."""

    def __init__(self, target: str, timeout_s: float, patience_s: float) -> None:
        self._target, self._timeout_s, self._patience_s = target, timeout_s, patience_s
        self._streamed: dict[str, Request] = {}
        self._single: dict[str, Request] = {}  # in flight, too, but with no stream: asked one by one
        self._bytes = 0
        self._again: list[tuple[float, str]] = []  # a heap: when to send which of `_streamed` once more
        self._answered = False
        self._failing_since: float | None = None
        self._backoff = Backoff(_FIRST_WAIT_S, _MAX_WAIT_S)

    @property
    def in_flight(self) -> int:
        return len(self._streamed) + len(self._single)

    @property
    def full(self) -> bool:
        return self.in_flight >= WINDOW or self._bytes >= _WINDOW_BYTES

    def add(self, request: Request) -> None:
        """Raises `ValueError` where its id is that of another in flight."""
        if request.id in self._streamed or request.id in self._single:
            raise ValueError(f"the id {request.id!r} is in flight already")
        self._streamed[request.id] = request
        self._bytes += len(request.image)

    def streamed(self) -> list[Request]:
        """All that a new stream is to carry."""
        self._again.clear()
        return list(self._streamed.values())

    def due(self) -> list[Request]:
        """Those that are to be sent again by now."""
        found = []
        while self._again and self._again[0][0] <= time.monotonic():
            found.append(self._streamed[heapq.heappop(self._again)[1]])
        return found

    def single(self) -> Request | None:
        """The next one to be asked for by a call of its own; while there is any, the stream rests."""
        return next(iter(self._single.values()), None)

    def wait_s(self) -> float:
        """How long to wait for the stream's next event: until something is due, or the timeout."""
        due_s = max(0.0, self._again[0][0] - time.monotonic()) if self._again else self._timeout_s
        return min(due_s, self._timeout_s)

    def waited(self, seconds: float) -> None:
        """No event came. Raises `CallFailed` where nothing is due either."""
        if seconds >= self._timeout_s:
            message = (
                f"{self._target} has sent no answer for {self._timeout_s:g} s; see what keeps it, or allow it more"
            )
            raise CallFailed("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", message)

    def outcome(self, item: pb.ClassifyStreamResponse) -> tuple[str, Outcome] | None:
        """None where it is no outcome yet: the image will be sent again."""
        if item.id not in self._streamed:
            raise CallFailed("INTERNAL", "ID_UNKNOWN", f"{self._target} answered '{item.id}', which nobody asked")
        if item.HasField("answer"):
            return self.settled(item.id, item.answer)
        failure = from_item(item.error)
        if not failure.transient or self._lasts_too_long():
            return self.settled(item.id, failure)
        heapq.heappush(self._again, (time.monotonic() + (failure.retry_after_s or self._backoff.next_s()), item.id))
        return None

    def settled(self, request_id: str, outcome: Outcome) -> tuple[str, Outcome]:
        among = self._streamed if request_id in self._streamed else self._single
        self._bytes -= len(among.pop(request_id).image)
        self._answered, self._failing_since = True, None
        self._backoff.reset()
        return request_id, outcome

    def reconnects(self, failure: CallFailed) -> bool:
        """Whether another stream may take the place of one that ended so. Where not, all are asked one by one."""
        if failure.code in _BROKEN:
            return True
        # One of the images is at fault, such as by its size; the others are answered.
        self._single, self._streamed = self._streamed, {}
        return False

    def back_off_s(self, failure: CallFailed) -> float:
        """Seconds before the next try. Raises the failure once it has lasted for too long, or where no server was."""
        too_long = self._lasts_too_long()
        if too_long or (not self._answered and failure.reason == failure.code):
            raise failure
        wait_s = self._backoff.next_s()
        log.warning("%s; asking again for %d images in %.1f s", failure.message, self.in_flight, wait_s)
        return wait_s

    def _lasts_too_long(self) -> bool:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        return now - self._failing_since >= self._patience_s
