"""Many requests over one stream: few in work at once, so that flow control reaches the caller.

A request takes a place before it is read and gives it back when its answer is written. So neither a caller who sends
fast nor one who reads slowly makes the server hold more of them.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from service.errors import Draining

Q = TypeVar("Q")
A = TypeVar("A")


Answer = Callable[[Q, asyncio.Event], Awaitable[A]]
"""From a request to its answer. It sets the event when the request has its place in the queue."""


class BoundedStreams:
    """The streams of a server, each with at most `places` requests in work.

    A stream reads no further request while its last one waits for a place in the queue. Streams do not wait for others.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.ending = False
        self.waiting: set[asyncio.Task[None]] = set()  # readers whose caller has not sent the next request

    def end(self) -> None:
        """From now on no stream reads another request; each answers what it has read, then raises `Draining`."""
        self.ending = True
        for reader in self.waiting:
            reader.cancel()

    async def answers(
        self, requests: AsyncIterator[Q], answer: Answer[Q, A], *, in_order: bool
    ) -> AsyncGenerator[A, None]:
        """The answers as they are ready, or in the order of their requests.

        Raises what `requests` or `answer` raises, after the answers before it. Leaving early cancels what is in work.
        """
        stream = _Stream(self, requests, answer, in_order)
        reader = asyncio.create_task(stream.read())
        try:
            while (oldest := await stream.pending.get()) is not None:
                try:
                    yield await oldest
                finally:
                    del oldest  # its error would otherwise hold itself, and the request
                stream.room.release()
            await asyncio.wait({reader})
            if reader.cancelled():  # by `end`
                raise Draining
            reader.result()
        finally:
            await _abandon([reader, *stream.left()])
            del reader  # its error would otherwise hold itself, and the request read last


class _Stream(Generic[Q, A]):
    def __init__(
        self,
        streams: BoundedStreams,
        requests: AsyncIterator[Q],
        answer: Answer[Q, A],
        in_order: bool,
    ) -> None:
        self.room = asyncio.Semaphore(streams.places)
        self.pending: asyncio.Queue[asyncio.Future[A] | None] = asyncio.Queue()  # None after the last
        self._working: dict[asyncio.Future[A], None] = {}  # in the order of their requests
        self._last_placed = asyncio.Event()  # of the request read last
        self._last_placed.set()
        self._streams, self._requests, self._answer, self._in_order = streams, requests, answer, in_order

    async def read(self) -> None:
        try:
            while await self._read_one():
                pass
        finally:
            if self._working:
                await asyncio.wait(list(self._working))
            self.pending.put_nowait(None)

    def left(self) -> list["asyncio.Future[A]"]:
        """Requests in work, and answers that were not taken."""
        left = dict(self._working)
        while not self.pending.empty():
            if (future := self.pending.get_nowait()) is not None:
                left[future] = None
        return list(left)

    async def _read_one(self) -> bool:
        """Whether there was one. It returns, so that no frame holds the request while the next one is awaited."""
        request = await self._next()
        if request is not None:
            self._begin(request)
        return request is not None

    def _begin(self, request: Q) -> None:
        placed = self._last_placed = asyncio.Event()
        future = asyncio.ensure_future(self._answer(request, placed))
        future.add_done_callback(lambda _: placed.set())  # also where it never got a place
        self._working[future] = None
        future.add_done_callback(self._working.pop)
        if self._in_order:
            self.pending.put_nowait(future)
        else:
            future.add_done_callback(self.pending.put_nowait)

    async def _next(self) -> Q | None:
        """None after the last. Raises `Draining`."""
        await self.room.acquire()
        await self._last_placed.wait()
        if self._streams.ending:
            raise Draining
        reader: Any = asyncio.current_task()
        self._streams.waiting.add(reader)
        try:
            return await anext(self._requests, None)
        finally:
            self._streams.waiting.discard(reader)
            del reader  # an error would otherwise hold this frame, and the frame the task that holds the error


async def _abandon(futures: list["asyncio.Future[Any]"]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
