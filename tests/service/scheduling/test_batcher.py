"""How batches form between decoders and a GPU: gates instead of sleeps, and no wait that ends by itself."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from service.engines.engine import Outputs
from service.errors import DeadlineExpired, QueueFull
from service.scheduling.batcher import Batcher
from service.scheduling.fair_queue import Bounds
from service.scheduling.scheduler import RunTiming

PATIENCE_S = 60
FOR_EVER_S = 10**6


class Engine:
    """Notes its batches in one list for all engines; while the gate is closed nothing leaves."""

    provider = "CUDAExecutionProvider"

    def __init__(self, largest: int = 8, log: list[list[int]] | None = None) -> None:
        self.batch_sizes = (1, largest)
        self.batches = [] if log is None else log
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()

    def run(self, parts: Sequence[Any], evidence: bool = False) -> Outputs:
        numbers = [int(row) for rows in parts for row in rows[:, 0, 0, 0]]
        self.batches.append(numbers)
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        logits = np.float32(numbers)[:, np.newaxis]
        return Outputs(logits, logits)


class Picture:
    """Number 0 to 255 to itself; `held` until it may be decoded."""

    size, evidence, caller = 1, False, "somebody"

    def __init__(self, engine: Engine, number: int, held: bool = False, in_time_s: float | None = None) -> None:
        self.engine, self.number = engine, number
        self.deadline = None if in_time_s is None else time.monotonic() + in_time_s
        self.prepared, self.release = threading.Event(), threading.Event()
        if not held:
            self.release.set()

    def estimate(self) -> float:
        return 0.0

    def prepare(self) -> Any:
        self.prepared.set()
        assert self.release.wait(PATIENCE_S)
        return np.full((1, 1, 1, 1), self.number, np.uint8)

    def finish(self, outputs: Outputs, spent: RunTiming) -> int:
        return int(outputs.logits[0, 0])


@pytest.fixture
def make() -> Iterator[Callable[..., Batcher]]:
    """`make(decoders=…, …)` gives a batcher that waits for company for ever, unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def make(decoders: int = 1, queue_limit: int = 100, max_wait_s: float = FOR_EVER_S, **more: Any) -> Batcher:
            batcher = Batcher(decoders, Bounds(queue_limit, 2**30), max_wait_s, **{"ready_rows": 100, **more})
            stack.callback(batcher.close)
            return batcher

        yield make


@contextlib.asynccontextmanager
async def full_device(batcher: Batcher, engine: Engine):
    """Inside, both runners are in an engine that runs single pictures (number 0), so that nothing else gets in."""
    engine.gate.clear()
    running = [batcher.submit(Picture(engine, 0)) for _ in range(2)]
    for _ in running:
        assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)
    try:
        yield
    finally:
        engine.gate.set()
    assert await asyncio.gather(*running) == [0, 0]


def test_a_picture_without_company_in_sight_goes_at_once(make) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=4), Engine()
        for number in range(5):
            assert await batcher.submit(Picture(engine, number)) == number
        assert engine.batches == [[0], [1], [2], [3], [4]]

    asyncio.run(scenario())


def test_pictures_that_come_while_the_device_works_go_together(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(), Engine()
        engine.gate.clear()
        first = batcher.submit(Picture(engine, 0))
        assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)
        others = [batcher.submit(Picture(engine, number)) for number in range(1, 6)]
        await asyncio.to_thread(eventually, lambda: batcher.waiting == 0 and batcher.running == 6)
        engine.gate.set()
        assert await asyncio.gather(first, *others) == list(range(6))
        assert engine.batches == [[0], [1, 2, 3, 4, 5]]

    asyncio.run(scenario())


def test_a_full_batch_goes_while_another_runs(make) -> None:
    async def scenario() -> None:
        batcher, engine = make(), Engine(largest=4)
        engine.gate.clear()
        pending = [batcher.submit(Picture(engine, 0))]
        assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)
        pending += [batcher.submit(Picture(engine, number)) for number in range(1, 5)]
        assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)  # and the gate is still closed
        engine.gate.set()
        assert await asyncio.gather(*pending) == list(range(5))
        assert engine.batches == [[0], [1, 2, 3, 4]]

    asyncio.run(scenario())


def test_what_is_being_decoded_is_waited_for(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=2), Engine()
        slow = Picture(engine, 1, held=True)
        pending = [batcher.submit(slow)]
        assert await asyncio.to_thread(slow.prepared.wait, PATIENCE_S)
        pending.append(batcher.submit(Picture(engine, 2)))
        await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 1)
        slow.release.set()
        assert await asyncio.gather(*pending) == [1, 2]
        assert engine.batches == [[2, 1]]

    asyncio.run(scenario())


def test_but_not_longer_than_the_longest_wait(make) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=2, max_wait_s=0.01), Engine()
        slow = Picture(engine, 1, held=True)
        pending = batcher.submit(slow)
        assert await asyncio.to_thread(slow.prepared.wait, PATIENCE_S)
        assert await batcher.submit(Picture(engine, 2)) == 2  # while the other is still being decoded
        slow.release.set()
        assert await pending == 1
        assert engine.batches == [[2], [1]]

    asyncio.run(scenario())


def test_nor_by_somebody_whose_deadline_leaves_no_time_for_it(make) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=2), Engine()
        slow = Picture(engine, 1, held=True)
        pending = batcher.submit(slow)
        assert await asyncio.to_thread(slow.prepared.wait, PATIENCE_S)
        assert await batcher.submit(Picture(engine, 2, in_time_s=PATIENCE_S)) == 2
        slow.release.set()
        assert await pending == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("failing", [True, False])
def test_nobody_waits_for_a_picture_that_will_not_come(make, eventually, failing: bool) -> None:
    """It cannot be decoded, or its caller leaves while it is in the queue."""

    class Broken(Picture):
        def prepare(self) -> Any:
            super().prepare()
            raise ValueError("no picture")

    async def scenario() -> None:
        batcher, engine = make(decoders=2), Engine()
        slow = (Broken if failing else Picture)(engine, 1, held=True)
        pending = batcher.submit(slow)
        assert await asyncio.to_thread(slow.prepared.wait, PATIENCE_S)
        other = batcher.submit(Picture(engine, 2))
        await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 1)
        if not failing:
            pending.cancel()
        slow.release.set()
        assert await other == 2
        assert engine.batches == [[2]]
        if failing:
            with pytest.raises(ValueError, match="no picture"):
                await pending

    asyncio.run(scenario())


# Who never reaches the device


def test_a_deadline_that_passes_after_decoding_keeps_a_picture_from_the_device(make, eventually) -> None:
    class Hasty(Picture):
        def prepare(self) -> Any:
            self.deadline = time.monotonic() + 0.01
            return super().prepare()

    async def scenario() -> None:
        batcher, engine = make(), Engine(largest=1)
        async with full_device(batcher, engine):
            late = Hasty(engine, 7)
            pending = [batcher.submit(late), batcher.submit(Picture(engine, 8))]
            await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 2 and time.monotonic() > late.deadline)
        with pytest.raises(DeadlineExpired):
            await pending[0]
        assert await pending[1] == 8
        assert engine.batches == [[0], [0], [8]]
        await asyncio.to_thread(eventually, lambda: batcher.running == 0)

    asyncio.run(scenario())


def test_a_caller_who_leaves_after_decoding_keeps_the_picture_from_the_device(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(), Engine(largest=1)
        async with full_device(batcher, engine):
            pending = [batcher.submit(Picture(engine, number)) for number in (7, 8)]
            await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 2)
            pending[0].cancel()
        assert await pending[1] == 8
        assert engine.batches == [[0], [0], [8]]
        await asyncio.to_thread(eventually, lambda: batcher.running == 0)

    asyncio.run(scenario())


def test_the_device_rests_when_all_who_waited_for_it_have_left(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(), Engine(largest=1)
        async with full_device(batcher, engine):
            pending = batcher.submit(Picture(engine, 7))
            await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 1)
            pending.cancel()
        await asyncio.to_thread(eventually, lambda: batcher.running == 0)
        assert await batcher.submit(Picture(engine, 8)) == 8
        assert engine.batches == [[0], [0], [8]]

    asyncio.run(scenario())


# Bounds and fairness


def test_decoders_stop_when_enough_rows_wait_and_the_queue_fills(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=3, queue_limit=10, ready_rows=4), Engine(largest=1)
        async with full_device(batcher, engine):
            pending = [batcher.submit(Picture(engine, number)) for number in range(1, 5)]
            await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 4)
            pending += [batcher.submit(Picture(engine, number)) for number in range(5, 15)]
            assert (batcher.waiting, batcher._ready.rows) == (10, 4)
            with pytest.raises(QueueFull):
                batcher.submit(Picture(engine, 99))
        assert await asyncio.gather(*pending) == list(range(1, 15))

    asyncio.run(scenario())


def test_decoders_stop_when_the_pictures_in_work_hold_enough_bytes(make, eventually) -> None:
    class Large(Picture):
        size = 2**29  # two are all that the scheduler takes at once

    async def scenario() -> None:
        batcher, engine = make(decoders=3), Engine(largest=1)
        engine.gate.clear()
        pending = []
        for number in range(2):
            pending.append(batcher.submit(Large(engine, number)))
            assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)
        pending.append(batcher.submit(Large(engine, 2)))
        assert (batcher.running, batcher.waiting) == (2, 1)
        engine.gate.set()
        assert await asyncio.gather(*pending) == [0, 1, 2]
        assert sorted(engine.batches) == [[0], [1], [2]]
        await asyncio.to_thread(eventually, lambda: batcher._bytes == 0)

    asyncio.run(scenario())


def test_a_picture_that_cannot_be_decoded_makes_room_for_others(make) -> None:
    class Broken(Picture):
        size = 2**30

        def prepare(self) -> Any:
            super().prepare()
            raise ValueError("no picture")

    async def scenario() -> None:
        batcher, engine = make(decoders=2), Engine()
        broken = Broken(engine, 1, held=True)
        pending = [batcher.submit(broken)]
        assert await asyncio.to_thread(broken.prepared.wait, PATIENCE_S)
        pending += [batcher.submit(Picture(engine, number)) for number in (2, 3)]
        broken.release.set()
        error, *others = await asyncio.gather(*pending, return_exceptions=True)
        assert isinstance(error, ValueError)
        assert others == [2, 3]

    asyncio.run(scenario())


def test_a_busy_model_does_not_starve_another(make, eventually) -> None:
    async def scenario() -> None:
        order: list[list[int]] = []
        batcher, busy, other = make(max_wait_s=0), Engine(1, order), Engine(8, order)
        async with full_device(batcher, busy):
            pending = [batcher.submit(Picture(busy, number)) for number in range(1, 5)]
            pending.append(batcher.submit(Picture(other, 100)))
            pending += [batcher.submit(Picture(busy, number)) for number in range(5, 30)]
            await asyncio.to_thread(eventually, lambda: batcher.waiting == 0)
        await asyncio.gather(*pending)
        assert order.index([100]) < order.index([10])  # whoever came well after it, though theirs are full batches

    asyncio.run(scenario())


# What is told about batches


def test_an_observer_hears_of_every_batch_and_its_rows(make, eventually) -> None:
    async def scenario() -> None:
        heard: list[tuple[Any, int]] = []
        batcher, engine = make(on_batch=lambda engine, rows: heard.append((engine, rows))), Engine()
        engine.gate.clear()
        pending = [batcher.submit(Picture(engine, 0))]
        assert await asyncio.to_thread(engine.entered.acquire, timeout=PATIENCE_S)
        pending += [batcher.submit(Picture(engine, number)) for number in range(1, 4)]
        await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 3)
        engine.gate.set()
        await asyncio.gather(*pending)
        assert heard == [(engine, 1), (engine, 3)]

    asyncio.run(scenario())


def test_an_observer_that_fails_does_not_stop_the_runners(make) -> None:
    def fail(engine: Any, rows: int) -> None:
        raise KeyError("no such series")

    async def scenario() -> None:
        batcher, engine = make(on_batch=fail), Engine()
        for _ in range(4):
            with pytest.raises(KeyError):
                await batcher.submit(Picture(engine, 1))
        assert batcher.alive()
        assert engine.batches == []

    asyncio.run(scenario())


# The end


def test_close_does_not_wait_for_company_that_cannot_come_any_more(make, eventually) -> None:
    async def scenario() -> None:
        batcher, engine = make(decoders=2), Engine()
        slow = Picture(engine, 1, held=True)
        pending = [batcher.submit(slow), batcher.submit(Picture(engine, 2))]
        await asyncio.to_thread(eventually, lambda: batcher._ready.rows == 1)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        slow.release.set()
        await closing
        assert await asyncio.gather(*pending) == [1, 2]
        assert not batcher.alive()

    asyncio.run(scenario())
