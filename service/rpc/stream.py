"""`ClassifyStream`: pictures in while there is a place for them, answers out as they are ready.

A picture takes a place when it is read and gives it back when its answer is written, so that neither a caller who sends
fast nor one who reads slowly makes the server hold more of them; the rest is up to gRPC's flow control.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextvars import copy_context
from functools import partial

from anther.v1 import classifier_pb2 as pb
from service.core.classifier import Answer, Classifier, answering
from service.errors import Draining, QueueFull
from service.metrics import Metrics
from service.rpc.instrumented import SAME_MOMENT_S, noted
from service.rpc.messages import item_error, request_of, response

_METHOD = "ClassifyStream"


class Streams:
    """The streams of a server, `places` pictures each."""

    def __init__(self, classifier: Classifier, metrics: Metrics, places: int) -> None:
        self.classifier, self.metrics, self.places = classifier, metrics, places
        self.ending = False
        self.open: set[Stream] = set()

    def end(self) -> None:
        """From now on no stream reads another picture; each answers what it has read, then ends as UNAVAILABLE."""
        self.ending = True
        for stream in self.open:
            stream.stop_waiting()


class Stream:
    """One call. Its `deadline`, in seconds of `time.monotonic`, is that of every picture."""

    def __init__(self, streams: Streams, deadline: float | None) -> None:
        self._streams = streams
        self._deadline = deadline
        self._places = asyncio.Semaphore(streams.places)
        self._ready: asyncio.Queue[pb.ClassifyStreamResponse | None] = asyncio.Queue()
        self._working: set[asyncio.Task[Answer]] = set()
        self._reader: asyncio.Task[None]
        self._waiting = False  # for the caller to send

    async def answers(self, requests: AsyncIterator[pb.ClassifyRequest]) -> AsyncIterator[pb.ClassifyStreamResponse]:
        """Raises `Draining`, and what `requests` raises, when every picture that was read is answered."""
        reader = self._reader = asyncio.create_task(self._read(requests))
        self._streams.open.add(self)
        try:
            while (answer := await self._ready.get()) is not None:
                yield answer
                self._places.release()
            await asyncio.wait({reader})
            if reader.cancelled():  # by `stop_waiting`
                raise Draining
            reader.result()
        finally:
            self._streams.open.discard(self)
            await self._abandon(reader)
            del self._reader, reader  # an error of the reader's would otherwise hold itself, and the picture read last

    def stop_waiting(self) -> None:
        if self._waiting:
            self._reader.cancel()

    async def _abandon(self, reader: "asyncio.Task[None]") -> None:
        tasks = (reader, *self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ClassifyRequest]) -> None:
        try:
            while await self._read_one(requests):
                pass
        finally:
            if self._working:
                await asyncio.wait(self._working)
            self._ready.put_nowait(None)

    async def _read_one(self, requests: AsyncIterator[pb.ClassifyRequest]) -> bool:
        """Whether there was one."""
        await self._places.acquire()
        if self._streams.ending:
            raise Draining
        self._waiting = True
        request = await anext(requests, None)
        self._waiting = False
        if request is not None:
            await self._begin(request)
        return request is not None

    async def _begin(self, message: pb.ClassifyRequest) -> None:
        """Returns when the picture has its place in the queue, which others fill, too; until then no other is read."""
        started, request = time.perf_counter(), request_of(message, self._deadline)
        while True:
            context = copy_context()
            task = asyncio.create_task(self._streams.classifier.classify(request), context=context)
            self._working.add(task)
            await asyncio.sleep(0)  # the task's first step queues the picture, or raises
            full = task.exception() if task.done() else None
            if not isinstance(full, QueueFull):
                break
            self._working.discard(task)
            await asyncio.sleep(full.retry_after_s)
        model = context.get(answering) or self._streams.classifier.registry.named(message.model)
        where = model.labels if model else ("", "")  # for a name that the client made up
        task.add_done_callback(partial(self._ended, message.id, where, started))

    def _ended(self, request_id: str, where: tuple[str, str], started: float, task: "asyncio.Task[Answer]") -> None:
        self._working.discard(task)
        metrics = self._streams.metrics
        if task.cancelled():
            code = self._departure()
        elif (error := task.exception()) is not None:
            status = noted(error, metrics)
            code = status.code.name
            self._ready.put_nowait(pb.ClassifyStreamResponse(id=request_id, error=item_error(status)))
        else:
            code, answer = "OK", task.result()
            self._ready.put_nowait(pb.ClassifyStreamResponse(id=request_id, answer=response(answer, request_id)))
            metrics.answered(answer)
        metrics.finished(*where, _METHOD, code, time.perf_counter() - started)

    def _departure(self) -> str:
        late = self._deadline is not None and time.monotonic() > self._deadline - SAME_MOMENT_S
        return "DEADLINE_EXCEEDED" if late else "CANCELLED"
