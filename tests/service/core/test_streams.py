"""A stream reads few requests at once, answers in order or as it can, and ends cleanly whoever ends it."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.streams import BoundedStreams
from service.errors import Draining


def streams(places: int) -> BoundedStreams:
    return BoundedStreams(places)


class Answers:
    """Answers in the making, which a test finishes when it wants to."""

    def __init__(self) -> None:
        self.futures: dict[int, asyncio.Future[str]] = {}
        self.cancelled: list[int] = []

    async def __call__(self, question: int, placed: asyncio.Event) -> str:
        placed.set()
        self.futures[question] = asyncio.get_running_loop().create_future()
        try:
            return await self.futures[question]
        except asyncio.CancelledError:
            self.cancelled.append(question)
            raise


async def count(until: int, read: list[int] | None = None, error: Exception | None = None) -> AsyncIterator[int]:
    for number in range(until):
        if read is not None:
            read.append(number)
        yield number
    if error is not None:
        raise error


async def settled() -> None:
    """Whatever can go on without an answer has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


# The order and the bounds


def test_answers_come_in_the_order_of_the_questions(run) -> None:
    async def ask() -> list[str]:
        answers = Answers()
        stream = streams(5).answers(count(5), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        for number in (4, 2, 3, 1):
            answers.futures[number].set_result(str(number))
        await settled()
        assert not first.done()
        answers.futures[0].set_result("0")
        return [await first, *[answer async for answer in stream]]

    assert run(ask()) == ["0", "1", "2", "3", "4"]


def test_no_more_questions_are_read_than_there_are_places(run) -> None:
    async def ask() -> tuple[list[int], list[int]]:
        answers, read = Answers(), []
        stream = streams(3).answers(count(10, read), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        before = list(read)
        answers.futures[0].set_result("0")
        await first  # whoever took it has not asked for the next one, so its place is still taken
        await settled()
        after = list(read)
        await stream.aclose()
        return before, after

    assert run(ask()) == ([0, 1, 2], [0, 1, 2])


def test_an_error_of_the_questions_comes_after_the_answers_before_it(run) -> None:
    async def ask() -> list[str]:
        answers, found = Answers(), []
        stream = streams(5).answers(count(2, error=ValueError("no message")), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        for number in (0, 1):
            answers.futures[number].set_result(str(number))
        found.append(await first)
        with pytest.raises(ValueError, match="no message"):
            found.extend([answer async for answer in stream])
        return found

    assert run(ask())[0] == "0"


def test_whoever_leaves_early_cancels_what_is_in_work(run) -> None:
    async def ask() -> list[int]:
        answers = Answers()
        stream = streams(4).answers(count(10), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        answers.futures[0].set_result("0")
        await first
        await stream.aclose()
        return answers.cancelled

    assert run(ask()) == [1, 2, 3]


def test_whoever_leaves_after_the_last_question_cancels_what_is_left(run) -> None:
    async def ask() -> list[int]:
        answers = Answers()
        stream = streams(4).answers(count(2), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        answers.futures[0].set_result("0")
        await first
        await settled()
        await stream.aclose()
        return answers.cancelled

    assert run(ask()) == [1]


def test_a_reader_who_is_cancelled_while_waiting_cancels_all(run) -> None:
    async def ask() -> list[int]:
        answers = Answers()
        stream = streams(2).answers(count(10), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return answers.cancelled

    assert sorted(run(ask())) == [0, 1]


def test_the_end_waits_for_answers_but_for_no_further_question(run) -> None:
    async def ask() -> str:
        async def one_and_then_silence() -> AsyncIterator[int]:
            yield 0
            await asyncio.Event().wait()

        answers, server = Answers(), streams(4)
        stream = server.answers(one_and_then_silence(), answers, in_order=True)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        server.end()
        await settled()
        answers.futures[0].set_result("0")
        found = await first
        with pytest.raises(Draining):
            await anext(stream)
        return found

    assert run(ask()) == "0"


def test_no_stream_begins_after_the_end(run) -> None:
    async def ask() -> None:
        server, read = streams(4), []
        server.end()
        with pytest.raises(Draining):
            await anext(server.answers(count(3, read), Answers(), in_order=True))
        assert read == []

    run(ask())


def test_answers_come_as_they_are_ready_where_the_order_does_not_matter(run) -> None:
    async def ask() -> list[str]:
        answers = Answers()
        stream = streams(5).answers(count(3), answers, in_order=False)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        for number in (2, 0, 1):
            answers.futures[number].set_result(str(number))
        return [await first, *[answer async for answer in stream]]

    assert run(ask()) == ["2", "0", "1"]


@pytest.mark.parametrize("in_order", [True, False])
def test_who_takes_no_answers_gets_no_more_read(run, in_order: bool) -> None:
    """The requests are done with, but their answers would pile up."""

    async def ask() -> list[int]:
        answers, read = Answers(), []
        stream = streams(2).answers(count(8, read), answers, in_order=in_order)
        first = asyncio.ensure_future(anext(stream))
        await settled()
        for number in (0, 1):
            answers.futures[number].set_result(str(number))
        await first
        await settled()
        reads = [len(read)]  # the first answer is still being written: its place is not free yet
        await anext(stream)
        await settled()
        reads.append(len(read))
        await stream.aclose()
        return reads

    assert run(ask()) == [2, 3]


@pytest.mark.parametrize("in_order", [True, False])
def test_nothing_is_read_while_the_last_request_waits_for_its_place(run, in_order: bool) -> None:
    async def ask() -> list[int]:
        events: list[asyncio.Event] = []

        async def answer(request: int, placed: asyncio.Event) -> str:
            events.append(placed)
            await asyncio.Event().wait()
            return ""

        read: list[int] = []
        stream = streams(4).answers(count(8, read), answer, in_order=in_order)
        first = asyncio.ensure_future(anext(stream))
        reads = []
        for _ in range(3):
            await settled()
            reads.append(len(read))
            events[-1].set()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        return reads

    assert run(ask()) == [1, 2, 3]


def test_a_request_that_fails_before_it_has_a_place_stops_nothing(run) -> None:
    async def ask() -> list[str]:
        async def answer(request: int, placed: asyncio.Event) -> str:
            return f"{request} failed"

        return [found async for found in streams(4).answers(count(3), answer, in_order=True)]

    assert run(ask()) == ["0 failed", "1 failed", "2 failed"]


@pytest.mark.parametrize("in_order", [True, False])
def test_a_stream_that_breaks_holds_no_request_afterwards(run, in_order: bool) -> None:
    """Not even until the garbage collector comes by: a request may be 20 MB."""

    class Request:
        pass

    async def requests() -> AsyncIterator[Request]:
        yield Request()
        raise ValueError("no message")

    async def refuse(request: Request, placed: asyncio.Event) -> str:
        raise Draining

    async def answer(request: Request, placed: asyncio.Event) -> str:
        return "answered"

    async def ask() -> int:
        for each in (answer, refuse):
            with contextlib.suppress(ValueError, Draining):
                async for _ in streams(2).answers(requests(), each, in_order=in_order):
                    pass
        await settled()
        return sum(type(found) is Request for found in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        assert run(ask()) == 0
    finally:
        gc.enable()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_in_whichever_order_each_request_is_answered_once(data: st.DataObject) -> None:
    places, in_order = data.draw(st.integers(1, 4), "places"), data.draw(st.booleans(), "in order")
    total = data.draw(st.integers(0, 12), "requests")

    async def ask() -> None:
        answers, read, taken = Answers(), [], []
        stream = streams(places).answers(count(total, read), answers, in_order=in_order)
        pending = asyncio.ensure_future(anext(stream))
        while len(taken) < total:
            await settled()
            assert len(read) - len(taken) <= places
            if held := [number for number, future in answers.futures.items() if not future.done()]:
                number = data.draw(st.sampled_from(held), "next to end")
                answers.futures[number].set_result(str(number))
            await settled()
            if pending.done() and (len(held) <= 1 or data.draw(st.booleans(), "take")):
                taken.append(int(pending.result()))
                pending = asyncio.ensure_future(anext(stream))
        with pytest.raises(StopAsyncIteration):
            await pending
        assert sorted(taken) == list(range(total))
        assert not in_order or taken == sorted(taken)

    asyncio.run(asyncio.wait_for(ask(), 60))
