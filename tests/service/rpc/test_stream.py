"""`ClassifyStream` over a classifier that answers when a test says so: its items, how they count, how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anther.v1 import classifier_pb2 as pb
from bundle.errors import ImageFormatRefused, ModelNotFound
from service.core.answers import Answer, Prediction, Timings
from service.core.call import Call, Caller
from service.core.recorder import End, Recorder
from service.core.requests import ImageRequest, Target
from service.core.streams import BoundedStreams
from service.edge.calls import Calls
from service.engines.engine import Outputs
from service.errors import Draining, InvalidArgument, QueueFull
from service.rpc.servicer import Servicer
from service.scheduling.scheduler import RunTiming

MODEL: Any = SimpleNamespace(
    name="flowers", version=1, labels=("flowers", "1"), engine=SimpleNamespace(provider="CPUExecutionProvider")
)
CANARY: Any = SimpleNamespace(labels=("flowers", "2"))
OUTPUTS = Outputs(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
ANSWER = Answer(
    MODEL, (Prediction("daisy", 0, 0.75),), True, Timings(0.0, 0.0, 0.0, 0.0, 0.0), OUTPUTS, RunTiming(0.0, 0.0)
)


class HandClassifier:
    """Holds every image until `settle` is called for it."""

    def __init__(self) -> None:
        self.held: dict[str, asyncio.Future[Answer]] = {}
        self.tried: list[str] = []
        self.left: list[str] = []
        self.registry = SimpleNamespace(named=lambda name: None if name == "made-up" else MODEL)

    def find(self, target: Target) -> Any:
        if target.model == "made-up":
            raise ModelNotFound("made-up", ["flowers"])
        return CANARY if target.label == "canary" else MODEL

    async def classify(self, model: Any, request: ImageRequest, placed: asyncio.Event) -> Answer:
        placed.set()
        self.tried.append(request.id)
        self.held[request.id] = asyncio.get_running_loop().create_future()
        try:
            return await self.held[request.id]
        except asyncio.CancelledError:
            self.left.append(request.id)
            raise
        finally:
            del self.held[request.id]

    def settle(self, name: str, error: Exception | None = None) -> None:
        if error is None:
            self.held[name].set_result(ANSWER)
        else:
            self.held[name].set_exception(error)


class Tally:
    """What a reader of the recorder was told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.ends: list[tuple[str | None, ...]] = []

    def answered(self, answer: Any) -> None:
        raise AssertionError("the classifier tells of answers")

    def ended(self, end: End) -> None:
        assert end.seconds >= 0
        if end.reason:
            self.reasons.append(end.reason)
        self.ends.append((*end.where, end.method, end.code))

    def forget(self, where: tuple[str, str]) -> None:
        raise AssertionError("no version leaves")


class Talk:
    """A stream, its caller, and what lies between them."""

    def __init__(self, places: int, deadline: float | None = None) -> None:
        self.classifier, self.tally = HandClassifier(), Tally()
        self.streams = BoundedStreams(places)
        calls = Calls(Recorder((self.tally,)), self.classifier.registry)  # type: ignore[arg-type]
        servicer = Servicer(self.classifier, calls, self.streams)  # type: ignore[arg-type]
        self.sent: asyncio.Queue[pb.ClassifyRequest | Exception | None] = asyncio.Queue()
        self.answers = servicer.ClassifyStream(self._requests(), Call("grpc", Caller("192.0.2.1"), deadline))

    async def _requests(self) -> AsyncIterator[pb.ClassifyRequest]:
        while (request := await self.sent.get()) is not None:
            if isinstance(request, Exception):
                raise request
            yield request

    def send(self, *names: str, **options: str) -> None:
        for name in names:
            self.sent.put_nowait(pb.ClassifyRequest(id=name, **options))

    def half_close(self) -> None:
        self.sent.put_nowait(None)

    async def take(self) -> pb.ClassifyStreamResponse:
        return await anext(self.answers)


async def settled() -> None:
    """Everything that can happen without the caller has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


def turn(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


# What is read, and when


def test_answers_come_as_they_are_ready() -> None:
    async def test() -> None:
        talk = Talk(places=8)
        talk.send(*"abc")
        talk.half_close()
        first = asyncio.ensure_future(talk.take())
        await settled()
        got = []
        for name in "cab":
            talk.classifier.settle(name)
            got.append((await (first if name == "c" else talk.take())).id)
        assert got == ["c", "a", "b"]
        with pytest.raises(StopAsyncIteration):
            await talk.take()

    turn(test)


# Pictures that fail


def test_a_failed_picture_is_an_item_with_code_reason_message_and_facts() -> None:
    async def test() -> None:
        talk = Talk(places=4)
        talk.send("a", "b")
        first = asyncio.ensure_future(talk.take())
        await settled()
        talk.classifier.settle("a", ImageFormatRefused("text", ("JPEG", "PNG")))
        item = await first
        assert (item.id, item.error.code, item.error.reason) == ("a", 3, "IMAGE_FORMAT_REFUSED")
        assert item.error.message == "the data is text; allowed formats are JPEG, PNG"
        assert dict(item.error.metadata) == {"found": "text", "allowed": "JPEG,PNG"}
        assert not item.error.HasField("retry_after")
        talk.classifier.settle("b")
        assert (await talk.take()).HasField("answer")
        await talk.answers.aclose()
        assert talk.tally.reasons == ["IMAGE_FORMAT_REFUSED"]

    turn(test)


def test_a_full_queue_met_late_is_an_item_that_says_when_to_retry() -> None:
    async def test() -> None:
        talk = Talk(places=1)
        talk.send("a")
        first = asyncio.ensure_future(talk.take())
        await settled()
        talk.classifier.settle("a", QueueFull(5, 5, "requests", 0.25))
        item = await first
        assert (item.error.code, item.error.reason, item.error.retry_after) == (8, "QUEUE_FULL", 0.25)
        await talk.answers.aclose()

    turn(test)


def test_every_item_is_counted_by_its_own_end() -> None:
    async def test() -> None:
        talk = Talk(places=4)
        talk.send("a", "b")
        talk.send("c", model="made-up")
        talk.send("d", label="canary")
        first = asyncio.ensure_future(talk.take())
        await settled()
        assert (await first).error.reason == "MODEL_NOT_FOUND"
        talk.classifier.settle("a")
        await talk.take()
        for name in "bd":
            talk.classifier.settle(name, InvalidArgument("top_k", -1, "0 or more"))
            await talk.take()
        await talk.answers.aclose()
        assert talk.tally.ends == [
            ("", "", "ClassifyStream", "NOT_FOUND"),
            ("flowers", "1", "ClassifyStream", "OK"),
            ("flowers", "1", "ClassifyStream", "INVALID_ARGUMENT"),
            ("flowers", "2", "ClassifyStream", "INVALID_ARGUMENT"),
        ]

    turn(test)


# The end


def test_what_ends_the_requests_ends_the_answers_after_the_last_of_them() -> None:
    async def test() -> None:
        talk = Talk(places=4)
        talk.send("a")
        talk.sent.put_nowait(InvalidArgument("request", "3 bytes", "a message"))
        first = asyncio.ensure_future(talk.take())
        await settled()
        assert not first.done()
        talk.classifier.settle("a")
        assert (await first).id == "a"
        with pytest.raises(InvalidArgument):
            await talk.take()

    turn(test)


@pytest.mark.parametrize(("deadline", "code"), [(None, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
def test_closing_the_stream_leaves_no_work_behind(deadline: float | None, code: str) -> None:
    async def test() -> None:
        before, talk = asyncio.all_tasks(), Talk(places=3, deadline=deadline)
        talk.send(*"abcd")
        first = asyncio.ensure_future(talk.take())
        await settled()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert sorted(talk.classifier.left) == ["a", "b", "c"]
        assert talk.tally.ends == [("flowers", "1", "ClassifyStream", code)] * 3
        assert asyncio.all_tasks() == before
        assert talk.streams.waiting == set()

    turn(test)


def test_a_stream_that_waits_for_its_caller_ends_at_once_when_the_server_does() -> None:
    async def test() -> None:
        talk = Talk(places=3)
        first = asyncio.ensure_future(talk.take())
        await settled()
        talk.streams.end()
        with pytest.raises(Draining):
            await first

    turn(test)


@pytest.mark.parametrize("places", [2, 8])
def test_what_was_read_is_answered_before_the_server_ends(places: int) -> None:
    """With two places the reader waits for one of them, with eight for the caller."""

    async def test() -> None:
        talk = Talk(places)
        talk.send(*"ab")
        first = asyncio.ensure_future(talk.take())
        await settled()
        talk.streams.end()
        talk.send("c")
        for name in "ab":
            talk.classifier.settle(name)
        assert {(await first).id, (await talk.take()).id} == {"a", "b"}
        with pytest.raises(Draining):
            await talk.take()
        assert talk.classifier.tried == ["a", "b"]

    turn(test)
