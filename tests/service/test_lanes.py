"""What becomes of work in the lanes: a result, a refusal, an expiry or a cancellation, and only one of them."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError as ForeignCancelledError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeadlineExpired, Draining, QueueFull
from service.lanes import Lanes

PLENTY = 2**30


class Held:
    """Work that tells when it starts and ends when it may."""

    def __init__(self) -> None:
        self.started, self.release = threading.Event(), threading.Event()

    def __call__(self, waited_s: float) -> str:
        self.started.set()
        assert self.release.wait(60)
        return "held"


@pytest.fixture
def make_lanes() -> Iterator[Callable[..., Lanes]]:
    with contextlib.ExitStack() as stack:

        def make(count: int = 1, queue_limit: int = 100, queue_bytes: int = PLENTY) -> Lanes:
            lanes = Lanes(count, queue_limit, queue_bytes)
            stack.callback(lanes.close)
            return lanes

        yield make


@contextlib.asynccontextmanager
async def busy(lanes: Lanes):
    """Inside, every lane is at work, so that whatever is submitted waits."""
    work = [Held() for _ in range(lanes.count)]
    running = [lanes.submit(held, 0) for held in work]
    await asyncio.gather(*(asyncio.to_thread(held.started.wait, 60) for held in work))
    try:
        yield
    finally:
        for held in work:
            held.release.set()
    assert await asyncio.gather(*running) == ["held"] * lanes.count


def nothing(waited_s: float) -> None:
    return None


# Results and errors


def test_a_result_reaches_its_caller_with_the_seconds_that_it_waited(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes()
        began = time.monotonic()
        async with busy(lanes):
            pending = lanes.submit(lambda waited_s: ("done", waited_s), 1)
            assert (lanes.waiting, lanes.running) == (1, 1)
        answer, waited_s = await pending
        assert answer == "done"
        assert 0 < waited_s <= time.monotonic() - began

    asyncio.run(scenario())


def test_pieces_start_in_the_order_in_which_they_came(make_lanes) -> None:
    async def scenario() -> None:
        lanes, started = make_lanes(), []
        async with busy(lanes):
            pending = [lanes.submit(lambda _, number=number: started.append(number), 1) for number in range(20)]
        await asyncio.gather(*pending)
        assert started == list(range(20))

    asyncio.run(scenario())


def test_a_piece_may_be_done_before_its_submission_returns(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(2)
        for number in range(2000):
            assert await lanes.submit(lambda _, number=number: number, 1) == number

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns wherever they can
    try:
        asyncio.run(scenario())
    finally:
        sys.setswitchinterval(interval)


def test_as_many_pieces_run_together_as_there_are_lanes(make_lanes) -> None:
    async def scenario() -> None:
        lanes, together = make_lanes(3), threading.Barrier(3, timeout=60)
        places = await asyncio.gather(*(lanes.submit(lambda _: together.wait(), 1) for _ in range(3)))
        assert sorted(places) == [0, 1, 2]  # a barrier lets nobody through before all have come

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [ValueError("bad"), MemoryError(), RecursionError(), ForeignCancelledError()])
def test_an_exception_reaches_its_caller_and_the_lane_lives_on(make_lanes, error: Exception) -> None:
    def fail(waited_s: float) -> None:
        raise error

    async def scenario() -> None:
        lanes = make_lanes()
        with pytest.raises(type(error)) as raised:
            await lanes.submit(fail, 1)
        assert raised.value is error
        assert await lanes.submit(lambda _: "next", 1) == "next"
        assert lanes.alive()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopIteration(7)]
)
def test_what_asyncio_would_not_carry_reaches_its_caller_as_a_cause(make_lanes, error: BaseException) -> None:
    """A future refuses StopIteration, which would leave its caller waiting for ever; SystemExit ends the loop."""

    def fail(waited_s: float) -> None:
        raise error

    async def scenario() -> None:
        lanes = make_lanes()
        with pytest.raises(RuntimeError, match="the work raised") as raised:
            await asyncio.wait_for(lanes.submit(fail, 1), 60)
        assert raised.value.__cause__ is error
        assert await lanes.submit(lambda _: "next", 1) == "next"

    asyncio.run(scenario())


# The bounds


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(queue_limit=2)
        async with busy(lanes):
            waiting = [lanes.submit(nothing, 1) for _ in range(2)]
            with pytest.raises(QueueFull) as refusal:
                lanes.submit(nothing, 1)
            assert lanes.waiting == 2
        assert refusal.value.facts == {"found": "2", "limit": "2", "unit": "requests"}
        assert 0 < refusal.value.retry_after_s < 60
        assert f"try again in {refusal.value.retry_after_s:.2f} s" in str(refusal.value)
        assert await asyncio.gather(*waiting) == [None, None]
        assert await lanes.submit(lambda _: "room again", 1) == "room again"

    asyncio.run(scenario())


def test_a_queue_full_of_bytes_refuses_too(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(queue_bytes=100)
        async with busy(lanes):
            waiting = [lanes.submit(nothing, 60), lanes.submit(nothing, 40)]
            with pytest.raises(QueueFull) as refusal:
                lanes.submit(nothing, 1)
            waiting.append(lanes.submit(nothing, 0))
        assert refusal.value.facts == {"found": "100", "limit": "100", "unit": "bytes"}
        await asyncio.gather(*waiting)
        async with busy(lanes):  # the bytes that were worked off are free again
            await asyncio.sleep(0)
            again = lanes.submit(nothing, 100)
        await again

    asyncio.run(scenario())


def test_one_piece_over_the_limit_of_bytes_is_taken_when_nothing_else_waits(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(queue_bytes=100)
        async with busy(lanes):
            large = lanes.submit(lambda _: "large", 101)
            with pytest.raises(QueueFull):
                lanes.submit(nothing, 1)
        assert await large == "large"

    asyncio.run(scenario())


def test_the_retry_hint_grows_with_the_queue_and_shrinks_with_the_lanes(make_lanes) -> None:
    async def hint(count: int, queue_limit: int) -> float:
        lanes = make_lanes(count, queue_limit)
        async with busy(lanes):
            waiting = [lanes.submit(nothing, 1) for _ in range(queue_limit)]
            with pytest.raises(QueueFull) as refusal:
                lanes.submit(nothing, 1)
        await asyncio.gather(*waiting)
        return refusal.value.retry_after_s

    async def scenario() -> None:
        one, four, short = await hint(1, 400), await hint(4, 400), await hint(1, 1)
        assert one == pytest.approx(4 * four)
        assert short < four

    asyncio.run(scenario())


def test_callers_who_left_do_not_take_the_places_of_others(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(queue_limit=2, queue_bytes=100)
        async with busy(lanes):
            left = [lanes.submit(nothing, 50) for _ in range(2)]
            for future in left:
                future.cancel()
            staying = [lanes.submit(lambda _: "served", 50) for _ in range(2)]
            with pytest.raises(QueueFull):
                lanes.submit(nothing, 1)
        assert await asyncio.gather(*staying) == ["served", "served"]

    asyncio.run(scenario())


# Deadlines and cancellation


def test_work_past_its_deadline_never_runs_and_its_caller_is_told(make_lanes) -> None:
    async def scenario() -> None:
        lanes, ran = make_lanes(), []
        with pytest.raises(DeadlineExpired):
            await lanes.submit(ran.append, 1, time.monotonic() - 1)
        async with busy(lanes):  # and one whose time runs out while it waits
            pending = lanes.submit(ran.append, 1, time.monotonic())
        with pytest.raises(DeadlineExpired) as expiry:
            await pending
        assert float(expiry.value.facts["waited_s"]) >= 0
        assert await lanes.submit(lambda _: "in time", 1, time.monotonic() + 1000) == "in time"
        assert ran == []

    asyncio.run(scenario())


def test_work_whose_caller_left_is_skipped(make_lanes) -> None:
    async def scenario() -> None:
        lanes, ran = make_lanes(), []
        async with busy(lanes):
            pending = [lanes.submit(ran.append, 1) for _ in range(3)]
            pending[1].cancel()
        await asyncio.gather(pending[0], pending[2])
        assert len(ran) == 2
        assert lanes.waiting == 0

    asyncio.run(scenario())


def test_a_caller_who_leaves_during_the_work_harms_nobody(make_lanes) -> None:
    async def scenario() -> None:
        lanes, held = make_lanes(), Held()
        pending = lanes.submit(held, 1)
        await asyncio.to_thread(held.started.wait, 60)
        pending.cancel()
        held.release.set()
        assert await lanes.submit(lambda _: "next", 1) == "next"
        assert pending.cancelled()

    asyncio.run(scenario())


def test_a_closed_event_loop_does_not_kill_a_lane(make_lanes) -> None:
    lanes, held = make_lanes(), Held()

    async def leave_it_running() -> None:
        lanes.submit(held, 1)
        lanes.submit(nothing, 1)
        await asyncio.to_thread(held.started.wait, 60)

    async def ask_again() -> str:
        return await lanes.submit(lambda _: "still here", 1)

    asyncio.run(leave_it_running())
    held.release.set()
    assert asyncio.run(ask_again()) == "still here"
    assert lanes.alive()


# The end


def test_close_finishes_what_was_accepted_and_refuses_the_rest(make_lanes) -> None:
    async def scenario() -> None:
        lanes = make_lanes(2)
        async with busy(lanes):
            accepted = [lanes.submit(lambda _, number=number: number, 1) for number in range(10)]
            closing = asyncio.create_task(asyncio.to_thread(lanes.close))
            while True:  # until the other thread has closed the door
                try:
                    lanes.submit(lambda _: -1, 1).cancel()
                except Draining:
                    break
                await asyncio.sleep(0)
        await closing
        assert await asyncio.gather(*accepted) == list(range(10))
        assert not lanes.alive()
        assert (lanes.waiting, lanes.running) == (0, 0)
        with pytest.raises(Draining):
            lanes.submit(nothing, 1)

    asyncio.run(scenario())


def test_closing_twice_is_harmless(make_lanes) -> None:
    lanes = make_lanes()
    lanes.close()
    lanes.close()
    assert not lanes.alive()


# Memory


class Picture:
    """Stands for 20 MB."""

    def fail(self, waited_s: float) -> None:
        raise ValueError

    def succeed(self, waited_s: float) -> None:
        return None


@pytest.mark.parametrize("outcome", [Picture.fail, Picture.succeed])
def test_a_finished_piece_is_let_go_without_the_garbage_collector(make_lanes, outcome) -> None:
    """An error's trace holds the frames it went through; a future among them would make a circle of it."""

    async def once(lanes: Lanes) -> "weakref.ref[Picture]":
        picture = Picture()
        with contextlib.suppress(ValueError):
            await lanes.submit(outcome.__get__(picture), 1)
        return weakref.ref(picture)

    async def scenario() -> None:
        lanes = make_lanes()
        picture = await once(lanes)
        assert await lanes.submit(lambda _: picture(), 1) is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


# Any schedule


FATES = st.sampled_from(["result", "error", "expired", "leaves"])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3),
    queue_limit=st.integers(1, 6),
    queue_bytes=st.integers(1, 60),
    pieces=st.lists(st.tuples(FATES, st.integers(0, 30), st.booleans()), max_size=25),
)
def test_every_piece_ends_exactly_once(count, queue_limit, queue_bytes, pieces) -> None:
    """In a result, its own error, a refusal, an expiry or a cancellation, whatever the schedule."""
    lanes, ran = Lanes(count, queue_limit, queue_bytes), Counter()

    def work(number: int, fate: str) -> Callable[[float], Any]:
        def piece(waited_s: float) -> int:
            ran[number] += 1
            if fate == "error":
                raise ValueError(number)
            return number

        return piece

    async def scenario() -> list[str]:
        outcomes, accepted = [], {}
        async with busy(lanes) if queue_limit >= count else contextlib.nullcontext():
            for number, (fate, size, breathe) in enumerate(pieces):
                deadline = time.monotonic() - 1 if fate == "expired" else None
                try:
                    accepted[number] = lanes.submit(work(number, fate), size, deadline)
                except QueueFull:
                    outcomes.append("refused")
                if fate == "leaves" and number in accepted:
                    accepted[number].cancel()
                if breathe:
                    await asyncio.sleep(0)
        await asyncio.to_thread(lanes.close)
        ended = await asyncio.gather(*accepted.values(), return_exceptions=True)
        for number, end in zip(accepted, ended, strict=True):
            outcomes.append(_outcome(number, pieces[number][0], end))
        return outcomes

    outcomes = asyncio.run(scenario())
    assert len(outcomes) == len(pieces)
    assert all(times == 1 for times in ran.values())
    assert ran.total() <= outcomes.count("result") + outcomes.count("error") + outcomes.count("leaves")
    assert (lanes.waiting, lanes.running) == (0, 0)


def _outcome(number: int, fate: str, end: object) -> str:
    """Which end it was, after checking that it is the one that this piece must have."""
    kind = {ValueError: "error", DeadlineExpired: "expired", asyncio.CancelledError: "leaves"}.get(type(end), "result")
    assert kind == fate
    assert kind != "result" or end == number
    assert kind != "error" or end.args == (number,)
    return kind
