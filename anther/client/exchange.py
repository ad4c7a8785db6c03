"""Many pictures over one stream: few at once, answers as they come; where the stream breaks, the unanswered ones are
asked again over another.

A thread of gRPC's sends what is put into the outbox, one of ours puts what comes back into the inbox; everything else
happens in the caller's thread, so that Ctrl-C meets no lock.
"""

import heapq
import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

import grpc

from anther.client.call_failed import CallFailed, from_item, from_rpc
from anther.v1 import classifier_pb2 as pb

log = logging.getLogger(__name__)

Outcome = pb.ClassifyResponse | CallFailed
Event = pb.ClassifyStreamResponse | CallFailed  # an item, or why the stream ended

WINDOW = 64  # enough to keep a large GPU busy; most wait in gRPC's buffers until the server reads on
_WINDOW_BYTES = 64 * 2**20  # however large the pictures, no more of them than this and one are held
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_FAREWELL_S = 2.0
_BROKEN = ("UNAVAILABLE", "CANCELLED")  # the latter is how gRPC ends what crosses a server's closing


class Exchange:
    """Pictures go out with `send` and come back, in any order, from `receive`. Not shared between threads.

    `timeout_s` is how long an answer may take, `patience_s` how long a server that has answered before may be away.
    """

    def __init__(
        self, stub: Any, target: str, timeout_s: float, patience_s: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._stub, self._target, self._timeout_s, self._patience_s = stub, target, timeout_s, patience_s
        self._sleep = sleep
        self._asked: dict[str, pb.ClassifyRequest] = {}
        self._alone: dict[str, pb.ClassifyRequest] = {}  # in flight, too, but with no stream: asked one by one
        self._bytes = 0
        self._again: list[tuple[float, str]] = []  # a heap: when to send which of `_asked` once more
        self._inbox: SimpleQueue[Event] = SimpleQueue()
        self._outbox: SimpleQueue[pb.ClassifyRequest | None] = SimpleQueue()
        self._call: Any = None
        self._listener = threading.Thread()
        self._known = False  # the server has answered something
        self._trouble: float | None = None  # since when it has not
        self._wait_s = _FIRST_WAIT_S

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up(patient=kind is None and not self._asked)

    @property
    def in_flight(self) -> int:
        return len(self._asked) + len(self._alone)

    @property
    def full(self) -> bool:
        return self.in_flight >= WINDOW or self._bytes >= _WINDOW_BYTES

    def send(self, request: pb.ClassifyRequest) -> None:
        """Its id must differ from those in flight."""
        if request.id in self._asked or request.id in self._alone:
            raise ValueError(f"the id {request.id!r} is in flight already")
        self._asked[request.id] = request
        self._bytes += len(request.image)
        if self._call is None:
            self._connect()
        else:
            self._outbox.put(request)

    def receive(self) -> tuple[str, Outcome]:
        """The next picture's id and outcome.

        Raises `CallFailed` for a server that is silent or out of reach; what is in flight then stays unanswered.
        """
        while not self._alone:
            event = self._next_event()
            if event is None:
                self._send_again()
            elif isinstance(event, pb.ClassifyStreamResponse):
                if (outcome := self._outcome(event)) is not None:
                    return self._settled(self._asked, event.id, outcome)
            else:
                self._mend(event)
        request_id, request = next(iter(self._alone.items()))
        return self._settled(self._alone, request_id, self._ask_alone(request))

    def _settled(self, among: dict[str, pb.ClassifyRequest], request_id: str, outcome: Outcome) -> tuple[str, Outcome]:
        self._bytes -= len(among.pop(request_id).image)
        self._known, self._trouble, self._wait_s = True, None, _FIRST_WAIT_S
        return request_id, outcome

    def _next_event(self) -> Event | None:
        """None when it is time to send something again."""
        due_s = max(0.0, self._again[0][0] - time.monotonic()) if self._again else self._timeout_s
        try:
            return self._inbox.get(timeout=min(due_s, self._timeout_s))
        except Empty:
            if due_s < self._timeout_s:
                return None
            raise self._silent() from None

    def _outcome(self, item: pb.ClassifyStreamResponse) -> Outcome | None:
        """None where it is no outcome yet: the picture will be sent again."""
        if item.id not in self._asked:
            raise CallFailed("INTERNAL", "ID_UNKNOWN", f"{self._target} answered '{item.id}', which nobody asked")
        if item.HasField("answer"):
            return item.answer
        failure = from_item(item.error)
        if not failure.passing or self._lasts_too_long():
            return failure
        heapq.heappush(self._again, (time.monotonic() + (failure.retry_after_s or self._next_wait()), item.id))
        return None

    def _send_again(self) -> None:
        while self._again and self._again[0][0] <= time.monotonic():
            self._outbox.put(self._asked[heapq.heappop(self._again)[1]])

    def _mend(self, failure: CallFailed) -> None:
        self._hang_up()
        if failure.code in _BROKEN:
            self._bear(failure)
            self._connect()
        else:  # one of the pictures is at fault, such as by its size; asked one by one, the others are answered
            self._alone, self._asked = self._asked, {}

    def _ask_alone(self, request: pb.ClassifyRequest) -> Outcome:
        while True:
            try:
                answer: pb.ClassifyResponse = self._stub.Classify(request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                failure = from_rpc(error, self._target)
                if not failure.passing:
                    return failure
                self._bear(failure)
            else:
                return answer

    def _bear(self, failure: CallFailed) -> None:
        """Wait before the next try. Raises the failure once it has lasted for too long, or where no server ever was."""
        too_long = self._lasts_too_long()
        if too_long or (not self._known and failure.reason == failure.code):
            raise failure
        wait_s = self._next_wait()
        log.warning("%s; asking again for %d pictures in %.1f s", failure.message, self.in_flight, wait_s)
        self._sleep(wait_s)

    def _lasts_too_long(self) -> bool:
        now = time.monotonic()
        if self._trouble is None:
            self._trouble = now
        return now - self._trouble >= self._patience_s

    def _next_wait(self) -> float:
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, _LONGEST_WAIT_S)
        return wait_s

    def _connect(self) -> None:
        self._again.clear()
        self._outbox = SimpleQueue()
        for request in self._asked.values():
            self._outbox.put(request)
        self._call = self._stub.ClassifyStream(iter(self._outbox.get, None))
        self._listener = threading.Thread(target=self._listen, args=(self._call,), daemon=True)
        self._listener.start()

    def _listen(self, call: Any) -> None:
        """In a thread of its own, until the stream's end, which it tells last."""
        try:
            for item in call:
                self._inbox.put(item)
            self._inbox.put(CallFailed("UNAVAILABLE", "STREAM_ENDED", f"{self._target} ended the stream early"))
        except grpc.RpcError as error:
            self._inbox.put(from_rpc(error, self._target))

    def _hang_up(self, patient: bool = False) -> None:
        """Patient, it lets the server end the stream."""
        if self._call is None:
            return
        self._outbox.put(None)
        if patient:
            self._listener.join(_FAREWELL_S)
        self._call.cancel()
        self._listener.join()
        self._call = None

    def _silent(self) -> CallFailed:
        message = f"{self._target} has sent no answer for {self._timeout_s:g} s; see what keeps it, or allow it more"
        return CallFailed("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", message)
