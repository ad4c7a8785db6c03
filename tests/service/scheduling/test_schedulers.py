"""What both schedulers promise: a result, a refusal, an expiry or a cancellation, and only one of them."""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError as ForeignCancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.errors import ImageTooCostly
from bundle.preprocessing import Preprocessing
from bundle.repository import Repository
from service.engines.cuda import CudaEngine, CudaOptions
from service.engines.engine import OnnxEngine, Outputs
from service.errors import DeadlineExpired, Draining, QueueFull
from service.scheduling.batcher import Batcher
from service.scheduling.decoder import NobodyWaits, Over
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.scheduling.scheduler import Prepared, RunTiming
from service.scheduling.slow_lanes import SlowLanesOptions

PLENTY = 2**30
PATIENCE_S = 60
KINDS = ["lanes", "batcher"]
SLOW_S = 0.05


class Engine:
    """Counts what reaches it, and can be held up or made to fail. The logits of a row are the number in its pixels."""

    provider = "CPUExecutionProvider"

    def __init__(self, error: BaseException | None = None, largest: int = 8) -> None:
        self.batch_sizes = (1, largest)
        self.error = error
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.batches: list[list[int]] = []
        self.evidence: list[bool] = []

    @property
    def seen(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    def run(self, parts: Sequence[Any], evidence: bool = False) -> Outputs:
        numbers = np.concatenate(parts)[:, 0, 0, :].astype(np.float32) @ np.float32([65536, 256, 1])
        self.batches.append(numbers.astype(int).tolist())
        self.evidence.append(evidence)
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        logits = numbers[:, np.newaxis]
        return Outputs(np.ones_like(logits), logits, logits[:, :, np.newaxis, np.newaxis] if evidence else None)


class Piece:
    """Work whose answer is the numbers of its rows. `prepare` tells that it began and ends when it may."""

    def __init__(
        self, engine: Engine, number: int = 0, rows: int = 1, size: int = 1, *, deadline: float | None = None,
        evidence: bool = False, held: bool = False, error: BaseException | None = None,
        finish: Callable[[Outputs, RunTiming], Any] | None = None, caller: str = "somebody", slow: bool = False,
    ) -> None:  # fmt: skip
        self.engine, self.size, self.deadline, self.evidence = engine, size, deadline, evidence
        self.caller, self.slow = caller, slow
        self.numbers = list(range(number, number + rows))
        self.error = error
        self._finish = finish
        self.prepared, self.release = threading.Event(), threading.Event()
        if not held:
            self.release.set()

    def estimate(self) -> float:
        return SLOW_S if self.slow else 0.0

    def prepare_by(self, prepare: Callable[..., Any], /) -> Any:
        self.slow = False
        prepare(b"", Preprocessing())
        return self.prepare()

    def prepare(self) -> Any:
        assert not self.slow, "a thread of the scheduler would be held"
        self.prepared.set()
        assert self.release.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        rows = [(number >> 16, number >> 8 & 255, number & 255) for number in self.numbers]
        return np.uint8(rows)[:, np.newaxis, np.newaxis, :]

    def finish(self, outputs: Outputs, spent: RunTiming) -> Any:
        if self._finish is not None:
            return self._finish(outputs, spent)
        return outputs.logits[:, 0].astype(int).tolist()


class Decoder:
    """In place of a process: decodes nothing, at once or when `gate` opens."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.ends: list[str] = []
        self.error: Exception | None = None

    def prepare(self, image: bytes, preprocessing: Preprocessing, over: Callable[[], Over | None]) -> Prepared:
        self.entered.release()
        while not self.gate.wait(0.001):
            if reason := over():
                self.ends.append(reason)
                raise NobodyWaits
        if self.error is not None:
            raise self.error
        return Prepared(np.zeros((1, 1, 3), np.uint8), 0.0, 0.0)

    def end(self, reason: str) -> None:
        self.ends.append(reason)


def scheduler_of(
    kind: str, count: int = 1, queue_limit: int = 100, queue_bytes: int = PLENTY, decoder: Decoder | None = None
) -> Any:
    bounds = Bounds(queue_limit, queue_bytes)
    slow = None if decoder is None else SlowLanesOptions(SLOW_S, count, bounds, lambda: decoder)
    if kind == "lanes":
        return Lanes(count, bounds, slow)
    return Batcher(count, bounds, max_wait_s=0.001, ready_rows=16, slow=slow)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`make(count, queue_limit, queue_bytes)` gives a scheduler of either kind with `count` threads that prepare."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Any:
            scheduler = scheduler_of(request.param, **options)
            stack.callback(scheduler.close)
            if decoder := options.get("decoder"):
                stack.callback(decoder.gate.set)
            return scheduler

        yield make


@contextlib.asynccontextmanager
async def busy(scheduler: Any, engine: Engine, count: int = 1):
    """Inside, every thread that prepares is at work, so that whatever is submitted waits."""
    work = [Piece(engine, size=0, held=True) for _ in range(count)]
    running = []
    for held in work:
        running.append(scheduler.submit(held))
        assert await asyncio.to_thread(held.prepared.wait, PATIENCE_S)
    try:
        yield
    finally:
        for held in work:
            held.release.set()
    await asyncio.gather(*running)


# Results and errors


def test_a_result_reaches_its_caller_with_the_seconds_that_it_waited(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        began = time.monotonic()
        async with busy(scheduler, engine):
            pending = scheduler.submit(Piece(engine, 7, finish=lambda outputs, spent: (outputs.logits[0, 0], spent)))
            assert (scheduler.waiting, scheduler.running) == (1, 1)
        number, spent = await pending
        assert number == 7
        assert min(spent.queue, spent.inference) > 0
        assert spent.queue + spent.inference <= time.monotonic() - began

    asyncio.run(scenario())


def test_rows_reach_the_engine_in_the_order_in_which_they_came(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        async with busy(scheduler, engine):
            pending = [scheduler.submit(Piece(engine, number)) for number in range(1, 21)]
        assert await asyncio.gather(*pending) == [[number] for number in range(1, 21)]
        assert engine.seen == list(range(21))

    asyncio.run(scenario())


def test_a_piece_of_several_rows_gets_all_of_its_own(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(count=2), Engine()
        pieces = [Piece(engine, 1000 * rows, rows) for rows in (3, 1, 8, 2, 5)]
        answers = await asyncio.gather(*map(scheduler.submit, pieces))
        assert answers == [piece.numbers for piece in pieces]
        assert max(map(len, engine.batches)) <= engine.batch_sizes[-1]

    asyncio.run(scenario())


def test_each_run_of_the_engine_has_one_first_piece_and_knows_its_rows(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        pieces = [Piece(engine, rows=rows, finish=lambda outputs, spent: spent) for rows in (1, 2, 1, 5)]
        async with busy(scheduler, engine):
            pending = [scheduler.submit(piece) for piece in pieces]
        spent = await asyncio.gather(*pending)
        assert sorted(each.rows for each in spent if each.first) == sorted(map(len, engine.batches[1:]))

    asyncio.run(scenario())


def test_evidence_is_asked_for_and_given_where_it_is_wanted_and_only_there(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()

        def evidence(outputs: Outputs, spent: RunTiming) -> Any:
            return None if outputs.evidence is None else outputs.evidence.ravel().tolist()

        async with busy(scheduler, engine):
            pieces = [Piece(engine, number, evidence=number % 2 == 0, finish=evidence) for number in range(1, 5)]
            pending = [scheduler.submit(piece) for piece in pieces]
        assert await asyncio.gather(*pending) == [None, [2.0], None, [4.0]]

    asyncio.run(scenario())


def test_a_piece_may_be_done_before_its_submission_returns(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(count=2), Engine()
        for number in range(1000):
            assert await scheduler.submit(Piece(engine, number)) == [number]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns wherever they can
    try:
        asyncio.run(scenario())
    finally:
        sys.setswitchinterval(interval)


def test_as_many_pieces_are_prepared_together_as_there_are_threads(make) -> None:
    class Meeting(Piece):
        def prepare(self) -> Any:
            together.wait()  # a barrier lets nobody through before all have come
            return super().prepare()

    together = threading.Barrier(3, timeout=PATIENCE_S)

    async def scenario() -> None:
        scheduler, engine = make(count=3), Engine()
        answers = await asyncio.gather(*(scheduler.submit(Meeting(engine, number)) for number in range(3)))
        assert answers == [[0], [1], [2]]

    asyncio.run(scenario())


ERRORS = [ValueError("bad"), MemoryError(), RecursionError(), ForeignCancelledError()]
NO_ERRORS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), StopIteration(7)]


def raising(error: BaseException) -> Callable[[Outputs, RunTiming], Any]:
    def finish(outputs: Outputs, spent: RunTiming) -> Any:
        raise error

    return finish


@pytest.mark.parametrize("where", ["prepare", "engine", "finish"])
@pytest.mark.parametrize("error", ERRORS + NO_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_reaches_its_caller_and_the_threads_live_on(make, error: BaseException, where: str) -> None:
    """A future refuses StopIteration, which would leave its caller waiting for ever; SystemExit would end the loop."""

    async def scenario() -> None:
        scheduler, good, bad = make(), Engine(), Engine(error if where == "engine" else None)
        piece = Piece(
            bad,
            error=error if where == "prepare" else None,
            finish=raising(error) if where == "finish" else None,
        )
        with pytest.raises(Exception) as raised:  # noqa: PT011 - any, and which one is looked at below
            await asyncio.wait_for(scheduler.submit(piece), PATIENCE_S)
        if error in ERRORS:
            assert raised.value is error
        else:
            assert raised.value.__cause__ is error
            assert "the work raised" in str(raised.value)
        assert await scheduler.submit(Piece(good, 5)) == [5]
        assert scheduler.alive()

    asyncio.run(scenario())


def test_a_failing_engine_fails_nobody_elses_work(make) -> None:
    async def scenario() -> None:
        scheduler, good, bad = make(), Engine(), Engine(ValueError("bad"))
        async with busy(scheduler, good):
            pending = [scheduler.submit(Piece((good, bad)[number % 2], number)) for number in range(10)]
        ends = await asyncio.gather(*pending, return_exceptions=True)
        assert ends[0::2] == [[0], [2], [4], [6], [8]]
        assert [type(end) for end in ends[1::2]] == [ValueError] * 5

    asyncio.run(scenario())


# The bounds


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(queue_limit=2), Engine()
        async with busy(scheduler, engine):
            waiting = [scheduler.submit(Piece(engine, number)) for number in range(2)]
            with pytest.raises(QueueFull) as refusal:
                scheduler.submit(Piece(engine))
            assert scheduler.waiting == 2
        assert refusal.value.facts == {"found": "2", "limit": "2", "unit": "requests"}
        assert 0 < refusal.value.retry_after_s < 60
        assert f"try again in {refusal.value.retry_after_s:.2f} s" in str(refusal.value)
        assert await asyncio.gather(*waiting) == [[0], [1]]
        assert await scheduler.submit(Piece(engine, 9)) == [9]

    asyncio.run(scenario())


def test_a_queue_full_of_bytes_refuses_too(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(queue_bytes=100), Engine()
        async with busy(scheduler, engine):
            waiting = [scheduler.submit(Piece(engine, size=size)) for size in (60, 40)]
            with pytest.raises(QueueFull) as refusal:
                scheduler.submit(Piece(engine, size=1))
            waiting.append(scheduler.submit(Piece(engine, size=0)))
        assert refusal.value.facts == {"found": "100", "limit": "100", "unit": "bytes"}
        await asyncio.gather(*waiting)
        async with busy(scheduler, engine):  # the bytes that were worked off are free again
            again = scheduler.submit(Piece(engine, 3, size=100))
        assert await again == [3]

    asyncio.run(scenario())


def test_one_piece_over_the_limit_of_bytes_is_taken_when_nothing_else_waits(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(queue_bytes=100), Engine()
        async with busy(scheduler, engine):
            large = scheduler.submit(Piece(engine, 4, size=101))
            with pytest.raises(QueueFull):
                scheduler.submit(Piece(engine, size=1))
        assert await large == [4]

    asyncio.run(scenario())


def test_the_retry_hint_grows_with_the_queue_and_shrinks_with_the_threads(make) -> None:
    async def hint(count: int, queue_limit: int) -> float:
        scheduler, engine = make(count=count, queue_limit=queue_limit), Engine()
        async with busy(scheduler, engine, count):
            waiting = [scheduler.submit(Piece(engine)) for _ in range(queue_limit)]
            with pytest.raises(QueueFull) as refusal:
                scheduler.submit(Piece(engine))
        await asyncio.gather(*waiting)
        return refusal.value.retry_after_s

    async def scenario() -> None:
        one, four, short = await hint(1, 400), await hint(4, 400), await hint(1, 1)
        assert one == pytest.approx(4 * four)
        assert short < four

    asyncio.run(scenario())


def test_callers_who_left_do_not_take_the_places_of_others(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(queue_limit=2, queue_bytes=100), Engine()
        async with busy(scheduler, engine):
            left = [scheduler.submit(Piece(engine, 99, size=50)) for _ in range(2)]
            for future in left:
                future.cancel()
            staying = [scheduler.submit(Piece(engine, number, size=50)) for number in (1, 2)]
            with pytest.raises(QueueFull):
                scheduler.submit(Piece(engine))
        assert await asyncio.gather(*staying) == [[1], [2]]
        assert 99 not in engine.seen

    asyncio.run(scenario())


# Deadlines and cancellation


def test_work_past_its_deadline_is_not_even_prepared_and_its_caller_is_told(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        late = [Piece(engine, 1, deadline=time.monotonic() - 1)]
        with pytest.raises(DeadlineExpired):
            await scheduler.submit(late[0])
        async with busy(scheduler, engine):  # and one whose time runs out while it waits
            late.append(Piece(engine, 2, deadline=time.monotonic()))
            pending = scheduler.submit(late[1])
        with pytest.raises(DeadlineExpired) as expiry:
            await pending
        assert float(expiry.value.facts["waited_s"]) >= 0
        assert await scheduler.submit(Piece(engine, 3, deadline=time.monotonic() + 1000)) == [3]
        assert not any(piece.prepared.is_set() for piece in late)
        assert engine.seen == [0, 3]

    asyncio.run(scenario())


def test_work_whose_time_runs_out_while_it_is_prepared_does_not_reach_the_engine(make, eventually) -> None:
    class Hasty(Piece):
        def prepare(self) -> Any:
            self.deadline = time.monotonic()
            return super().prepare()

    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        with pytest.raises(DeadlineExpired):
            await scheduler.submit(Hasty(engine, 7))
        assert await scheduler.submit(Piece(engine, 8)) == [8]
        assert engine.seen == [8]
        eventually(lambda: scheduler.running == 0)

    asyncio.run(scenario())


def test_work_whose_caller_leaves_while_it_is_prepared_does_not_reach_the_engine(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        held = Piece(engine, 7, held=True)
        pending = scheduler.submit(held)
        assert await asyncio.to_thread(held.prepared.wait, PATIENCE_S)
        pending.cancel()
        held.release.set()
        assert await scheduler.submit(Piece(engine, 8)) == [8]
        assert engine.seen == [8]

    asyncio.run(scenario())


def test_work_whose_caller_left_is_skipped(make, eventually) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        async with busy(scheduler, engine):
            pieces = [Piece(engine, number) for number in range(1, 4)]
            pending = [scheduler.submit(piece) for piece in pieces]
            pending[1].cancel()
        assert await asyncio.gather(pending[0], pending[2]) == [[1], [3]]
        assert not pieces[1].prepared.is_set()
        assert engine.seen == [0, 1, 3]
        eventually(lambda: (scheduler.waiting, scheduler.running) == (0, 0))

    asyncio.run(scenario())


@pytest.mark.parametrize("where", ["prepare", "engine"])
def test_a_caller_who_leaves_during_the_work_harms_nobody(make, eventually, where: str) -> None:
    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        held = Piece(engine, 1, held=where == "prepare")
        if where == "engine":
            engine.gate.clear()
        pending = scheduler.submit(held)
        await asyncio.to_thread(held.prepared.wait if where == "prepare" else engine.entered.acquire)
        pending.cancel()
        held.release.set()
        engine.gate.set()
        assert await scheduler.submit(Piece(engine, 2)) == [2]
        assert pending.cancelled()
        eventually(lambda: scheduler.running == 0)

    asyncio.run(scenario())


def test_a_closed_event_loop_kills_no_thread(make) -> None:
    scheduler, engine = make(), Engine()
    held = Piece(engine, 1, held=True)

    async def leave_it_running() -> None:
        scheduler.submit(held)
        scheduler.submit(Piece(engine, 2))
        await asyncio.to_thread(held.prepared.wait, PATIENCE_S)

    async def ask_again() -> Any:
        return await scheduler.submit(Piece(engine, 3))

    asyncio.run(leave_it_running())
    held.release.set()
    assert asyncio.run(ask_again()) == [3]
    assert scheduler.alive()


class BrokenLoop(asyncio.SelectorEventLoop):
    """Takes no calls from other threads once it is told to."""

    broken = False

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> Any:
        if self.broken:
            raise RuntimeError("broken, and yet not closed")
        return super().call_soon_threadsafe(*args, **options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_noticed(make, eventually) -> None:
    scheduler, engine = make(), Engine()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, BrokenLoop)
        assert scheduler.alive()
        loop.broken = True
        future = scheduler.submit(Piece(engine))
        eventually(lambda: not scheduler.alive())
        loop.broken = False
        future.cancel()

    with asyncio.Runner(loop_factory=BrokenLoop) as runner:
        runner.run(scenario())


# Turns among callers, and slow images


def test_callers_take_turns(make) -> None:
    """One who has asked for much does not make another wait for all of it."""

    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        async with busy(scheduler, engine):
            pending = [scheduler.submit(Piece(engine, number, caller="many")) for number in range(1, 11)]
            pending += [scheduler.submit(Piece(engine, number, caller="few")) for number in (101, 102)]
        await asyncio.gather(*pending)
        assert engine.seen.index(101) < 4
        assert [number for number in engine.seen if 0 < number < 100] == list(range(1, 11))

    asyncio.run(scenario())


def test_a_caller_who_holds_the_whole_queue_makes_room(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(queue_limit=4), Engine()
        async with busy(scheduler, engine):
            many = [scheduler.submit(Piece(engine, number, caller="many")) for number in range(1, 5)]
            other = scheduler.submit(Piece(engine, 9, caller="other"))
            with pytest.raises(QueueFull):
                await many.pop()
        assert await asyncio.gather(*many, other) == [[1], [2], [3], [9]]

    asyncio.run(scenario())


def test_slow_images_hold_up_nobody_else_and_are_answered_like_others(make, eventually) -> None:
    async def scenario() -> None:
        decoder, engine = Decoder(), Engine()
        scheduler = make(decoder=decoder)
        decoder.gate.clear()
        slow = [scheduler.submit(Piece(engine, number, slow=True)) for number in (101, 102)]
        assert await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        assert await scheduler.submit(Piece(engine, 7)) == [7]
        await asyncio.to_thread(eventually, lambda: (scheduler.slow_waiting, scheduler.running) == (1, 2))
        decoder.gate.set()
        assert await asyncio.gather(*slow) == [[101], [102]]
        assert (scheduler.waiting, scheduler.slow_waiting) == (0, 0)

    asyncio.run(scenario())


def test_while_several_callers_ask_less_is_slow(make) -> None:
    """A lane is not taken away from its image: the others wait as long as that takes."""

    class Middling(Piece):
        def estimate(self) -> float:
            return SLOW_S / 2

        def prepare_by(self, prepare: Callable[..., Any], /) -> Any:
            by_process.append(self.caller)
            return super().prepare_by(prepare)

    by_process: list[str] = []

    async def scenario() -> None:
        scheduler, engine = make(decoder=Decoder()), Engine()
        assert await scheduler.submit(Middling(engine, 1, caller="alone")) == [1]
        assert await scheduler.submit(Middling(engine, 2, caller="alone")) == [2]
        assert await scheduler.submit(Middling(engine, 3, caller="other")) == [3]
        assert await scheduler.submit(Piece(engine, 4, caller="other")) == [4]

    asyncio.run(scenario())
    assert by_process == ["other"]


@pytest.mark.parametrize("leaves", [True, False])
def test_a_slow_image_that_nobody_waits_for_is_abandoned(make, eventually, leaves: bool) -> None:
    async def scenario() -> None:
        decoder, engine = Decoder(), Engine()
        scheduler = make(decoder=decoder)
        decoder.gate.clear()
        slow = Piece(engine, 101, slow=True)
        pending = scheduler.submit(slow)
        assert await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        if leaves:
            pending.cancel()
        else:
            slow.deadline = time.monotonic()
            with pytest.raises(DeadlineExpired):
                await pending
        await asyncio.to_thread(eventually, lambda: decoder.ends == ["left" if leaves else "deadline"])
        decoder.gate.set()
        assert await scheduler.submit(Piece(engine, 102, slow=True)) == [102]
        assert engine.seen == [102]

    asyncio.run(scenario())


def test_the_queue_of_slow_images_is_bounded_and_their_errors_reach_their_callers(make, eventually) -> None:
    async def scenario() -> None:
        decoder, engine = Decoder(), Engine()
        scheduler = make(decoder=decoder, queue_limit=1)
        decoder.gate.clear()
        first = scheduler.submit(Piece(engine, 1, slow=True))
        assert await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        second = scheduler.submit(Piece(engine, 2, slow=True))
        await asyncio.to_thread(eventually, lambda: scheduler.slow_waiting == 1)
        with pytest.raises(QueueFull):
            await scheduler.submit(Piece(engine, 4, slow=True))
        decoder.error = ImageTooCostly("takes long")
        decoder.gate.set()
        for end in await asyncio.gather(first, second, return_exceptions=True):
            assert end is decoder.error
        assert scheduler.alive()

    asyncio.run(scenario())


def test_close_finishes_slow_images_too_and_ends_their_process(make) -> None:
    async def scenario() -> None:
        decoder, engine = Decoder(), Engine()
        scheduler = make(decoder=decoder)
        decoder.gate.clear()
        accepted = [scheduler.submit(Piece(engine, number, slow=True)) for number in (1, 2)]
        accepted.append(scheduler.submit(Piece(engine, 3)))
        assert await asyncio.to_thread(decoder.entered.acquire, timeout=PATIENCE_S)
        closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
        decoder.gate.set()
        await closing
        assert await asyncio.gather(*accepted) == [[1], [2], [3]]
        assert decoder.ends == ["closed"]
        assert (scheduler.running, scheduler.alive()) == (0, False)

    asyncio.run(scenario())


# The end


def test_close_finishes_what_was_accepted_and_refuses_the_rest(make) -> None:
    async def scenario() -> None:
        scheduler, engine = make(count=2), Engine()
        async with busy(scheduler, engine, 2):
            accepted = [scheduler.submit(Piece(engine, number)) for number in range(10)]
            closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
            while True:  # until the other thread has closed the door
                try:
                    scheduler.submit(Piece(engine)).cancel()
                except Draining:
                    break
                await asyncio.sleep(0)
        await closing
        assert await asyncio.gather(*accepted) == [[number] for number in range(10)]
        assert not scheduler.alive()
        assert (scheduler.waiting, scheduler.running) == (0, 0)
        with pytest.raises(Draining):
            scheduler.submit(Piece(engine))

    asyncio.run(scenario())


def test_closing_twice_is_harmless(make) -> None:
    scheduler = make()
    scheduler.close()
    scheduler.close()
    assert not scheduler.alive()


# Memory


@pytest.mark.parametrize("where", ["nowhere", "prepare", "engine", "finish"])
def test_a_finished_piece_is_let_go_without_the_garbage_collector(make, eventually, where: str) -> None:
    """An error's trace holds the frames it went through; a future among them would make a circle of it."""

    def fail(outputs: Outputs, spent: RunTiming) -> Any:
        raise ValueError

    async def once(scheduler: Any) -> "weakref.ref[Piece]":
        engine = Engine(ValueError() if where == "engine" else None)
        piece = Piece(
            engine,
            error=ValueError() if where == "prepare" else None,
            finish=fail if where == "finish" else None,
        )
        with contextlib.suppress(ValueError):
            await scheduler.submit(piece)
        engine.error = piece.error = None  # they hold the trace
        return weakref.ref(piece)

    async def scenario() -> None:
        scheduler = make()
        piece = await once(scheduler)
        await asyncio.to_thread(eventually, lambda: piece() is None)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_an_engine_that_nobody_else_holds_is_let_go(make, eventually) -> None:
    """A retired version's session is freed when the last of its work is done."""

    async def scenario() -> None:
        scheduler, engine = make(), Engine()
        assert await scheduler.submit(Piece(engine, 1)) == [1]
        left = weakref.ref(engine)
        del engine
        await asyncio.to_thread(eventually, lambda: left() is None)

    asyncio.run(scenario())


# Any schedule


FATES = st.sampled_from(["result", "slow", "prepare fails", "engine fails", "finish fails", "expired", "leaves"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3),
    queue_limit=st.integers(1, 6),
    queue_bytes=st.integers(1, 60),
    pieces=st.lists(st.tuples(FATES, st.integers(0, 30), st.integers(1, 8), st.booleans(), st.booleans()), max_size=25),
)
def test_every_piece_ends_exactly_once(kind, count, queue_limit, queue_bytes, pieces) -> None:
    """In its own rows, its own error, a refusal, an expiry or a cancellation, whatever the schedule."""
    scheduler = scheduler_of(kind, count, queue_limit, queue_bytes, Decoder())
    engines = Engine(), Engine(ValueError("engine fails"))
    works: dict[int, Piece] = {}

    async def scenario() -> tuple[int, list[Any]]:
        refused, accepted = 0, {}
        async with busy(scheduler, engines[0], count):
            for index, (fate, size, rows, evidence, breathe) in enumerate(pieces):
                works[index] = _piece(fate, 100 * (index + 1), size, rows, evidence, engines)
                try:
                    accepted[index] = scheduler.submit(works[index])
                except QueueFull:
                    refused += 1
                if fate == "leaves" and index in accepted:
                    accepted[index].cancel()
                if breathe:
                    await asyncio.sleep(0)
        await asyncio.to_thread(scheduler.close)
        ends = await asyncio.gather(*accepted.values(), return_exceptions=True)
        for index, end in zip(accepted, ends, strict=True):
            _check_end(pieces[index][0], works[index], end)
        return refused, ends

    refused, ends = asyncio.run(scenario())
    assert refused + len(ends) == len(pieces)
    assert (scheduler.waiting, scheduler.running) == (0, 0)
    seen = engines[0].seen + engines[1].seen
    assert len(set(filter(None, seen))) == len(list(filter(None, seen)))  # no row twice, but those that made it busy
    assert not {100 * (index + 1) for index, piece in enumerate(pieces) if piece[0] == "expired"}.intersection(seen)
    assert all(len(batch) <= 8 for engine in engines for batch in engine.batches)


def _piece(fate: str, number: int, size: int, rows: int, evidence: bool, engines: tuple[Engine, Engine]) -> Piece:
    return Piece(
        engines[fate == "engine fails"], number, rows, size, evidence=evidence,
        deadline=time.monotonic() - 1 if fate == "expired" else None,
        error=ValueError(fate) if fate == "prepare fails" else None,
        finish=raising(ValueError(fate)) if fate == "finish fails" else None,
        slow=fate == "slow",
    )  # fmt: skip


def _check_end(fate: str, piece: Piece, end: Any) -> None:
    if fate == "slow" and isinstance(end, QueueFull):  # of the second queue
        assert end.facts["limit"]
    elif fate in ("result", "slow"):
        assert end == piece.numbers
    elif fate == "expired":
        assert isinstance(end, DeadlineExpired)
    elif fate == "leaves":
        assert isinstance(end, asyncio.CancelledError)
    else:
        assert isinstance(end, ValueError)
        assert end.args == (fate,)


# Rows of a real model


@pytest.fixture(scope="module")
def model(models: Path) -> bytes:
    return Repository(models).open("flowers").read("model.onnx")


class Rows(Piece):
    def __init__(self, engine: Any, pixels: Any) -> None:
        super().__init__(engine)
        self.pixels = pixels

    def prepare(self) -> Any:
        return self.pixels

    def finish(self, outputs: Outputs, spent: RunTiming) -> Any:
        return outputs


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_batch_equals_the_same_picture_alone(kind: str, model: bytes) -> None:
    alone = OnnxEngine(model)
    batching = CudaEngine(model, CudaOptions(batch_sizes=(1, 2, 4, 8)), "cpu")

    @settings(max_examples=25, deadline=None)
    @given(counts=st.lists(st.integers(1, 8), min_size=1, max_size=12), seed=st.integers(0, 2**32 - 1))
    def check(counts: list[int], seed: int) -> None:
        chance = np.random.default_rng(seed)
        pixels = [chance.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in counts]
        for found, rows in zip(asyncio.run(answers(pixels)), pixels, strict=True):
            assert found.probabilities.shape == found.logits.shape == (len(rows), 3)
            for index in range(len(rows)):
                expected = alone.run((rows[index : index + 1],))
                np.testing.assert_allclose(found.logits[index], expected.logits[0], atol=1e-5)
                np.testing.assert_allclose(found.probabilities[index], expected.probabilities[0], atol=1e-6)

    async def answers(pixels: list[Any]) -> list[Outputs]:
        engine = batching if kind == "batcher" else alone
        return await asyncio.gather(*(scheduler.submit(Rows(engine, rows)) for rows in pixels))

    scheduler = scheduler_of(kind, count=2)
    try:
        check()
    finally:
        scheduler.close()
