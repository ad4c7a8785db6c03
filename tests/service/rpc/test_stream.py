"""The stream by itself, over a classifier that answers when a test says so: how much it reads, and how it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anther.v1 import classifier_pb2 as pb
from bundle.errors import ImageFormatRefused
from service.core.classifier import Answer, Prediction, Request, Timings, answering
from service.engines.engine import Outputs
from service.errors import Draining, InvalidArgument, QueueFull
from service.rpc.stream import Stream, Streams
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
    """Holds every picture until `settle` is called for it; refuses the next `full` ones as a full queue does."""

    def __init__(self) -> None:
        self.held: dict[str, asyncio.Future[Answer]] = {}
        self.tried: list[str] = []
        self.left: list[str] = []
        self.full = 0
        self.draining = False
        self.registry = SimpleNamespace(named=lambda name: None if name == "made-up" else MODEL)

    async def classify(self, request: Request) -> Answer:
        name = request.target.id
        self.tried.append(name)
        if request.target.label == "canary":
            answering.set(CANARY)
        if self.draining:
            raise Draining
        if self.full:
            self.full -= 1
            raise QueueFull(1, 1, "requests", 0.0)
        self.held[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.held[name]
        except asyncio.CancelledError:
            self.left.append(name)
            raise
        finally:
            del self.held[name]

    def settle(self, name: str, error: Exception | None = None) -> None:
        if error is None:
            self.held[name].set_result(ANSWER)
        else:
            self.held[name].set_exception(error)


class Tally:
    """What the metrics were told."""

    def __init__(self) -> None:
        self.pictures = 0
        self.reasons: list[str] = []
        self.ends: list[tuple[str, ...]] = []

    def answered(self, answer: Answer) -> None:
        self.pictures += 1

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)

    def finished(self, model: str, version: str, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.ends.append((model, version, method, code))


class Talk:
    """A stream, its caller, and what lies between them."""

    def __init__(self, places: int, deadline: float | None = None) -> None:
        self.classifier, self.tally = HandClassifier(), Tally()
        self.streams = Streams(self.classifier, self.tally, places)  # type: ignore[arg-type]
        self.sent: asyncio.Queue[pb.ClassifyRequest | Exception | None] = asyncio.Queue()
        self.reads = 0
        self.answers = Stream(self.streams, deadline).answers(self._requests())

    async def _requests(self) -> AsyncIterator[pb.ClassifyRequest]:
        while (request := await self.sent.get()) is not None:
            if isinstance(request, Exception):
                raise request
            self.reads += 1
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


def test_no_more_pictures_are_read_than_there_are_places() -> None:
    async def test() -> None:
        talk = Talk(places=3)
        talk.send(*"abcdefgh")
        first = asyncio.ensure_future(talk.take())
        await settled()
        assert (talk.reads, sorted(talk.classifier.held)) == (3, ["a", "b", "c"])
        talk.classifier.settle("b")
        assert (await first).id == "b"
        await talk.answers.aclose()

    turn(test)


def test_a_caller_who_takes_no_answers_gets_no_more_read() -> None:
    """The pictures are done with, but their answers would pile up."""

    async def test() -> None:
        talk = Talk(places=2)
        talk.send(*"abcdefgh")
        first = asyncio.ensure_future(talk.take())
        await settled()
        for name in "ab":
            talk.classifier.settle(name)
        await first
        await settled()
        assert talk.reads == 2  # the first answer is still being written: its place is not free yet
        await talk.take()
        await settled()
        assert talk.reads == 3
        await talk.answers.aclose()

    turn(test)


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


def test_a_full_queue_is_waited_out_and_nothing_is_read_meanwhile() -> None:
    async def test() -> None:
        talk = Talk(places=4)
        talk.classifier.full = 3
        talk.send(*"ab")
        first = asyncio.ensure_future(talk.take())
        while not talk.classifier.held:
            assert talk.reads <= 1
            await asyncio.sleep(0)
        assert talk.classifier.tried == ["a"] * 4
        talk.classifier.settle("a")
        assert (await first).HasField("answer")
        assert talk.tally.reasons == []
        await talk.answers.aclose()

    turn(test)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_in_whichever_order_each_picture_is_answered_once(data: st.DataObject) -> None:
    places = data.draw(st.integers(1, 4), "places")
    names = [str(number) for number in range(data.draw(st.integers(0, 12), "pictures"))]

    async def test() -> None:
        talk, taken = Talk(places), []
        talk.send(*names)
        talk.half_close()
        pending = asyncio.ensure_future(talk.take())
        while len(taken) < len(names):
            await settled()
            assert talk.reads - len(taken) <= places
            if held := sorted(talk.classifier.held):
                name = data.draw(st.sampled_from(held), "next to end")
                talk.classifier.full = data.draw(st.integers(0, 2), "refusals")
                talk.classifier.settle(name, data.draw(st.sampled_from([None, ImageFormatRefused("text", ("JPEG",))])))
            await settled()
            if pending.done() and (not talk.classifier.held or data.draw(st.booleans(), "take")):
                taken.append(pending.result().id)
                pending = asyncio.ensure_future(talk.take())
        with pytest.raises(StopAsyncIteration):
            await pending
        assert sorted(taken, key=int) == names
        assert len(talk.tally.ends) == len(names)

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
        assert talk.tally.pictures == 1

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
        talk.classifier.settle("a")
        await first
        for name in "bcd":
            talk.classifier.settle(name, InvalidArgument("top_k", -1, "0 or more"))
            await talk.take()
        await talk.answers.aclose()
        assert talk.tally.ends == [
            ("flowers", "1", "ClassifyStream", "OK"),
            ("flowers", "1", "ClassifyStream", "INVALID_ARGUMENT"),
            ("", "", "ClassifyStream", "INVALID_ARGUMENT"),
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
        assert talk.streams.open == set()

    turn(test)


def test_closing_while_the_queue_is_full_leaves_no_work_behind() -> None:
    async def test() -> None:
        before, talk = asyncio.all_tasks(), Talk(places=3)
        talk.classifier.full = 10**9
        talk.send("a")
        first = asyncio.ensure_future(talk.take())
        await settled()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        assert asyncio.all_tasks() == before

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


def test_a_picture_that_waits_for_the_queue_when_the_server_ends_is_told_so() -> None:
    async def test() -> None:
        talk = Talk(places=2)
        talk.classifier.full = 10**9
        talk.send("a")
        first = asyncio.ensure_future(talk.take())
        await settled()
        talk.classifier.draining = True
        talk.streams.end()
        item = await first
        assert (item.id, item.error.code, item.error.reason) == ("a", 14, "DRAINING")
        with pytest.raises(Draining):
            await talk.take()

    turn(test)


def test_a_stream_that_comes_too_late_is_refused() -> None:
    async def test() -> None:
        talk = Talk(places=2)
        talk.streams.end()
        talk.send("a")
        with pytest.raises(Draining):
            await talk.take()
        assert talk.reads == 0

    turn(test)
