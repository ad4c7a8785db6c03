"""Room for messages on their way in: bounded in bytes, shared among callers, given back; quick ones pass slow ones."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from service.edge import arrivals as module
from service.edge.arrivals import Arrivals
from service.errors import ArrivalsFull, ArrivedTooSlowly

MESSAGE = 10  # bytes


@dataclass
class Uploads:
    """Messages of callers; each arrives when it is told to."""

    arrivals: Arrivals
    reading: list[asyncio.Event] = field(default_factory=list)  # one for each message that is being read, to end it

    def begin(self, caller: str) -> "asyncio.Task[str]":
        return asyncio.create_task(self.arrivals.receive(caller, MESSAGE, self._read(caller)))

    def _read(self, caller: str) -> Callable[[], Awaitable[str]]:
        async def read() -> str:
            arrived = asyncio.Event()
            self.reading.append(arrived)
            await arrived.wait()
            return caller

        return read


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_of_one_caller_half_is_read_at_once_and_the_rest_when_there_is_room(run, monkeypatch) -> None:
    monkeypatch.setattr(module, "_TRIALS", 0)

    async def scene() -> None:
        uploads = Uploads(Arrivals(10 * MESSAGE, 60))
        begun = [uploads.begin("a") for _ in range(20)]
        await settled()
        assert len(uploads.reading) == 5
        newcomer = uploads.begin("b")
        await settled()
        assert len(uploads.reading) == 6, "another caller finds room"
        while not all(task.done() for task in begun):
            uploads.reading.pop(0).set()
            await settled()
            assert len(uploads.reading) <= 6
        assert {await task for task in begun} == {"a"}
        uploads.reading.pop().set() if uploads.reading else None
        assert await newcomer == "b"
        assert not uploads.arrivals.busy

    run(scene())


def test_what_is_there_already_is_read_beside_slow_messages(run) -> None:
    """All by one caller, so that nobody but the trial lets them in."""

    async def scene() -> None:
        uploads = Uploads(Arrivals(4 * MESSAGE, 60))
        slow = [uploads.begin("a") for _ in range(2)]
        await settled()

        async def at_once() -> str:
            return "quick"

        quick = [uploads.arrivals.receive("a", MESSAGE, at_once) for _ in range(50)]
        assert await asyncio.gather(*quick) == ["quick"] * 50
        assert not any(task.done() for task in slow)
        for each in uploads.reading:
            each.set()
        assert await asyncio.gather(*slow) == ["a", "a"]

    run(scene())


def test_what_finds_no_room_and_is_not_there_is_refused_with_a_hint(run) -> None:
    async def scene() -> None:
        uploads = Uploads(Arrivals(4 * MESSAGE, 60))
        begun = [uploads.begin("a") for _ in range(2 + 3 * module._TRIALS)]
        ends = await asyncio.gather(*begun[2:], return_exceptions=True)
        assert {type(end) for end in ends} == {ArrivalsFull}
        assert all(end.retry_after_s > 0 for end in ends if isinstance(end, ArrivalsFull))
        assert not any(task.done() for task in begun[:2])
        for each in uploads.reading:
            each.set()
        await asyncio.gather(*begun[:2])
        assert not uploads.arrivals.busy

    run(scene())


def test_what_takes_too_long_is_ended(run, monkeypatch) -> None:
    monkeypatch.setattr(module, "_TICK_S", 0.01)

    async def scene() -> None:
        uploads = Uploads(Arrivals(10 * MESSAGE, 0.01))
        with pytest.raises(ArrivedTooSlowly, match=r"within 0\.01 s"):
            await uploads.begin("a")
        assert not uploads.arrivals.busy

    run(scene())


def test_the_oldest_of_who_holds_most_makes_room_for_who_has_none(run, monkeypatch) -> None:
    monkeypatch.setattr(module, "_TRIALS", 0)

    async def scene() -> None:
        uploads = Uploads(Arrivals(4 * MESSAGE, 60))
        old, new, *others = (uploads.begin(caller) for caller in "aabc")
        await settled()
        early = uploads.begin("d")
        await settled()
        assert not old.done(), "it has not had its time"
        monkeypatch.setattr(module, "_SAFE_S", 0)
        late = uploads.begin("e")
        with pytest.raises(ArrivalsFull):
            await old
        await settled()
        assert len(uploads.reading) == 5, "the first in line took the place of the one that was ended"
        for _ in range(2):
            for each in uploads.reading:
                each.set()
            await settled()
        assert await asyncio.gather(new, *others, early, late) == [*"abcde"]
        assert not uploads.arrivals.busy

    run(scene())


def test_callers_who_leave_leave_nothing(run) -> None:
    """While they read, while they wait, and in the moment in which they are let in."""

    async def scene() -> None:
        uploads = Uploads(Arrivals(4 * MESSAGE, 60))
        begun = [uploads.begin("a") for _ in range(20)]
        await settled()
        for task in begun[::2]:
            task.cancel()
        uploads.reading[0].set()
        for task in begun[1::2]:
            task.cancel()
        ends = await asyncio.gather(*begun, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError | str) for end in ends)
        arrivals = uploads.arrivals
        assert (arrivals._used, arrivals._trials, dict(arrivals._held), arrivals._waiting) == (0, 0, {}, {})
        assert not arrivals.busy

    run(scene())


def test_a_message_larger_than_the_budget_is_read_alone(run) -> None:
    async def scene() -> None:
        uploads = Uploads(Arrivals(MESSAGE // 2, 60))
        first = uploads.begin("a")
        await settled()
        assert len(uploads.reading) == 1
        uploads.reading[0].set()
        assert await first == "a"

    run(scene())
