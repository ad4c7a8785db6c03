"""`anther.client.exchange` for an event loop: a task of gRPC's empties the outbox, one of ours fills the inbox."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc

from anther.client.call_failed import CallFailed, from_rpc, stream_ended
from anther.client.connection import Connection
from anther.client.pending import Answer, Event, Outcome, Pending, Request

_CLOSE_TIMEOUT_S = 2.0

Outbox = asyncio.Queue[Request | None]


class AsyncExchange:
    """Images go out with `send` and come back, in any order, from `receive`. For one task."""

    def __init__(
        self,
        stub: Any,
        connection: Connection,
        timeout_s: float,
        patience_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stub, self._connection, self._timeout_s, self._sleep = stub, connection, timeout_s, sleep
        self.pending = Pending(connection.target, timeout_s, patience_s)
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._outbox: Outbox = asyncio.Queue()
        self._call: Any = None
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "AsyncExchange":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._disconnect(patient=kind is None and not self.pending.in_flight)

    def send(self, request: Request) -> None:
        """As `Exchange.send`."""
        self.pending.add(request)
        if self._call is None:
            self._connect()
        else:
            self._outbox.put_nowait(request)

    async def receive(self) -> tuple[str, Outcome]:
        """As `Exchange.receive`."""
        while (request := self.pending.single()) is None:
            event = await self._next_event()
            if event is None:
                for due in self.pending.due():
                    self._outbox.put_nowait(due)
            elif isinstance(event, CallFailed):
                await self._reconnect(event)
            elif (outcome := self.pending.outcome(event)) is not None:
                return outcome
        return self.pending.settled(request.id, await self._ask_single(request))

    async def _next_event(self) -> Event | None:
        """None when it is time to send something again."""
        wait_s = self.pending.wait_s()
        try:
            async with asyncio.timeout(wait_s):
                return await self._inbox.get()
        except TimeoutError:
            self.pending.waited(wait_s)
            return None

    async def _reconnect(self, failure: CallFailed) -> None:
        await self._disconnect()
        self._connection.check()
        if self.pending.reconnects(failure):
            await self._sleep(self.pending.back_off_s(failure))
            self._connect()

    async def _ask_single(self, request: Request) -> Outcome:
        while True:
            try:
                with self._connection:
                    answer: Answer = await self._stub.Classify(
                        request, timeout=self._timeout_s, metadata=self._connection.metadata
                    )
            except grpc.RpcError as error:
                failure = from_rpc(error, self._connection.target)
                if not failure.transient:
                    return failure
                await self._sleep(self.pending.back_off_s(failure))
            else:
                return answer

    def _connect(self) -> None:
        self._outbox = asyncio.Queue()
        for request in self.pending.streamed():
            self._outbox.put_nowait(request)
        with self._connection:
            self._call = self._stub.ClassifyStream(_sent(self._outbox), metadata=self._connection.metadata)
        self._listener = asyncio.create_task(self._listen(self._call))

    async def _listen(self, call: Any) -> None:
        """Until the stream's end, which it tells last, also where the call or this task is cancelled.

        Where a write comes too late for a stream that has ended, grpc.aio hides the reason behind INTERNAL. The images
        are then asked for one by one, which is right for every reason.
        """
        end = stream_ended(self._connection.target)
        try:
            async for item in call:
                self._inbox.put_nowait(item)
        except grpc.RpcError as error:
            end = from_rpc(error, self._connection.target)
        finally:
            self._inbox.put_nowait(end)

    async def _disconnect(self, patient: bool = False) -> None:
        """Patient, it lets the server end the stream."""
        if self._listener is None:
            return
        self._outbox.put_nowait(None)
        try:
            if patient:
                await asyncio.wait({self._listener}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            self._call.cancel()
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._call = self._listener = None


async def _sent(outbox: Outbox) -> AsyncIterator[Request]:
    while (request := await outbox.get()) is not None:
        yield request
