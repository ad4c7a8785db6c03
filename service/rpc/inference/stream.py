"""Many questions over one stream, answered in their order: few at once, so that flow control reaches the caller."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from service.errors import Draining

Q = TypeVar("Q")
A = TypeVar("A")

Pending = asyncio.Queue[asyncio.Future[A] | None]
"""Answers in the making, in the order of their questions; None after the last."""


class OrderedStreams:
    """The streams of a server. Each has at most `places` questions in work, and reads no other until the oldest answer
    is taken.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._ending = False
        self._waiting: set[asyncio.Task[None]] = set()  # for a caller to ask

    def end(self) -> None:
        """From now on no stream reads another question; each answers what it has read, then raises `Draining`."""
        self._ending = True
        for reader in self._waiting:
            reader.cancel()

    async def answers(
        self, questions: AsyncIterator[Q], answer: Callable[[Q], Awaitable[A]]
    ) -> AsyncGenerator[A, None]:
        """Raises what `questions` or `answer` raises, after the answers before it; whoever leaves early cancels what is
        in work.
        """
        pending: Pending[A] = asyncio.Queue()
        room = asyncio.Semaphore(self._places)
        reader = asyncio.create_task(self._read(questions, answer, pending, room))
        try:
            while (oldest := await pending.get()) is not None:
                yield await oldest
                room.release()
            await asyncio.wait({reader})
            if reader.cancelled():  # by `end`
                raise Draining
            reader.result()
        finally:
            await _abandon([reader, *_left(pending)])
            del reader  # its error would otherwise hold itself, and the question read last

    async def _read(
        self,
        questions: AsyncIterator[Q],
        answer: Callable[[Q], Awaitable[A]],
        pending: Pending[A],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            while (question := await self._next(questions, room)) is not None:
                pending.put_nowait(asyncio.ensure_future(answer(question)))
        finally:
            pending.put_nowait(None)

    async def _next(self, questions: AsyncIterator[Q], room: asyncio.Semaphore) -> Q | None:
        """None after the last. Raises `Draining`."""
        await room.acquire()
        if self._ending:
            raise Draining
        reader: Any = asyncio.current_task()
        self._waiting.add(reader)
        try:
            return await anext(questions, None)
        finally:
            self._waiting.discard(reader)


def _left(pending: Pending[A]) -> list[asyncio.Future[A]]:
    left = []
    while not pending.empty():
        if (task := pending.get_nowait()) is not None:
            left.append(task)
    return left


async def _abandon(tasks: list[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
