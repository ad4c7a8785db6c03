"""Many images over one stream: few at once, answers as they come; where the stream breaks, the unanswered ones are
asked for again over another.

A thread of gRPC's sends what is put into the outbox, one of ours puts what comes back into the inbox; everything else
happens in the caller's thread, so that Ctrl-C meets no lock.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

import grpc

from anther.client.call_failed import CallFailed, from_rpc, stream_ended
from anther.client.connection import Connection
from anther.client.pending import Answer, Event, Outcome, Pending, Request

_CLOSE_TIMEOUT_S = 2.0


class Exchange:
    """Images go out with `send` and come back, in any order, from `receive`. Not shared between threads.

    `timeout_s` is how long an answer may take, `patience_s` how long a server that has answered before may be away.
    """

    def __init__(
        self,
        stub: Any,
        connection: Connection,
        timeout_s: float,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub, self._connection, self._timeout_s, self._sleep = stub, connection, timeout_s, sleep
        self.pending = Pending(connection.target, timeout_s, patience_s)
        self._inbox: SimpleQueue[Event] = SimpleQueue()
        self._outbox: SimpleQueue[Request | None] = SimpleQueue()
        self._call: Any = None
        self._listener = threading.Thread()

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect(patient=kind is None and not self.pending.in_flight)

    def send(self, request: Request) -> None:
        """Its id must differ from those in flight."""
        self.pending.add(request)
        if self._call is None:
            self._connect()
        else:
            self._outbox.put(request)

    def receive(self) -> tuple[str, Outcome]:
        """The next image's id and outcome.

        Raises `CallFailed` for a server that is silent or out of reach; what is in flight then stays unanswered.
        """
        while (request := self.pending.single()) is None:
            event = self._next_event()
            if event is None:
                for due in self.pending.due():
                    self._outbox.put(due)
            elif isinstance(event, CallFailed):
                self._reconnect(event)
            elif (outcome := self.pending.outcome(event)) is not None:
                return outcome
        return self.pending.settled(request.id, self._ask_single(request))

    def _next_event(self) -> Event | None:
        """None when it is time to send something again."""
        wait_s = self.pending.wait_s()
        try:
            return self._inbox.get(timeout=wait_s)
        except Empty:
            self.pending.waited(wait_s)
            return None

    def _reconnect(self, failure: CallFailed) -> None:
        self._disconnect()
        self._connection.check()
        if self.pending.reconnects(failure):
            self._sleep(self.pending.back_off_s(failure))
            self._connect()

    def _ask_single(self, request: Request) -> Outcome:
        while True:
            try:
                with self._connection:
                    answer: Answer = self._stub.Classify(
                        request, timeout=self._timeout_s, metadata=self._connection.metadata
                    )
            except grpc.RpcError as error:
                failure = from_rpc(error, self._connection.target)
                if not failure.transient:
                    return failure
                self._sleep(self.pending.back_off_s(failure))
            else:
                return answer

    def _connect(self) -> None:
        self._outbox = SimpleQueue()
        for request in self.pending.streamed():
            self._outbox.put(request)
        with self._connection:
            self._call = self._stub.ClassifyStream(iter(self._outbox.get, None), metadata=self._connection.metadata)
        self._listener = threading.Thread(target=self._listen, args=(self._call,), daemon=True)
        self._listener.start()

    def _listen(self, call: Any) -> None:
        """In a thread of its own, until the stream's end, which it tells last."""
        end = stream_ended(self._connection.target)
        try:
            for item in call:
                self._inbox.put(item)
        except grpc.RpcError as error:
            end = from_rpc(error, self._connection.target)
        finally:
            self._inbox.put(end)

    def _disconnect(self, patient: bool = False) -> None:
        """Patient, it lets the server end the stream."""
        if self._call is None:
            return
        self._outbox.put(None)
        if patient:
            self._listener.join(_CLOSE_TIMEOUT_S)
        self._call.cancel()
        self._listener.join()
        self._call = None
