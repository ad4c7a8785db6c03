"""Who is replaced, when, and what is told of it: with workers that are no processes."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.errors import WorkerFailed
from service.workers import supervisor as supervising
from service.workers.supervisor import Supervisor

PATIENCE_S = 60
SERVING = {
    "live": {"ok": True, "state": "serving"},
    "ready": {"ok": True, "state": "serving", "models": {"flowers": 1}},
}
STARTING = {"live": {"ok": True, "state": "starting"}, "ready": {"ok": False, "state": "starting"}}
ENDED = {"live": {"ok": False, "state": "ended"}, "ready": {"ok": False, "state": "ended"}}


class Fake:
    """A worker that serves, ends and ages when a test says so; it ends by itself when it is drained."""

    def __init__(self, slot: int, pid: int, on_edit: Callable[[], None]) -> None:
        self.slot, self.pid, self.age, self.facts = slot, pid, 3600.0, STARTING
        self.on_edit = on_edit
        self.drains = True
        self.silent_ticks = 0
        self.silent = False
        self.asked: list[str] = []
        loop = asyncio.get_running_loop()
        self._serving: asyncio.Future[str] = loop.create_future()
        self._end: asyncio.Future[str] = loop.create_future()

    def serve(self) -> None:
        self.facts = SERVING
        self._serving.set_result("flowers/1 on CPUExecutionProvider")

    def fail(self, why: str) -> None:
        self._serving.set_exception(WorkerFailed(self.slot, why))
        self.end("ended with exit code 1")

    def end(self, how: str = "was killed by SIGKILL") -> None:
        self.facts = ENDED
        if not self._end.done():
            self._end.set_result(how)

    @property
    def serves(self) -> bool:
        return self.facts is SERVING

    async def serving(self) -> str:
        return await self._serving

    async def ended(self) -> str:
        return await asyncio.shield(self._end)

    def age_s(self) -> float:
        return self.age

    def tick(self) -> int:
        self.silent_ticks += self.silent
        return self.silent_ticks

    def rescan(self) -> None:
        self.asked.append("rescan")

    def drain(self) -> None:
        self.asked.append("drain")
        if self.drains:
            self.end("ended with exit code 0")

    def kill(self) -> None:
        self.asked.append("kill")
        self.end()


class House:
    """A supervisor of two, and everything that it did. `out_of` system calls fail before one gives a worker."""

    def __init__(self, grace_s: float = PATIENCE_S, instantly: bool = True) -> None:
        self.workers: list[Fake] = []
        self.instantly = instantly
        self.lost: list[int] = []
        self.waits: list[float] = []
        self.announced: list[str] = []
        self.out_of = 0
        self.stopped = asyncio.Event()
        self.supervisor = Supervisor(2, self.spawn, self.lost.append, grace_s, self.sleep)
        self.running = asyncio.create_task(self.supervisor.run(self.announced.append, self.stopped))

    async def spawn(self, slot: int, on_edit: Callable[[], None]) -> Fake:
        if self.out_of:
            self.out_of -= 1
            raise WorkerFailed(slot, f"no process for worker {slot}")
        self.workers.append(Fake(slot, 100 + len(self.workers), on_edit))
        if self.instantly:
            self.workers[-1].serve()
        return self.workers[-1]

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)

    async def until(self, count: int) -> None:
        """So many workers were started so far, and nothing is left to do."""
        while len(self.workers) < count:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)

    async def stop(self) -> None:
        self.stopped.set()
        await self.running


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def test_it_announces_when_all_of_them_serve() -> None:
    async def scenario() -> None:
        house = House(instantly=False)
        await house.until(2)
        house.workers[0].serve()
        await house.until(2)
        assert house.announced == []
        assert house.supervisor.ready()["ok"] is False
        house.workers[1].serve()
        await house.until(2)
        assert house.announced == ["flowers/1 on CPUExecutionProvider"]
        await house.stop()

    play(scenario())


def test_a_worker_that_ends_is_replaced_in_its_slot_and_told() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.workers[1].end()
        await house.until(3)
        assert [worker.slot for worker in house.workers] == [0, 1, 1]
        assert house.lost == [1]
        assert house.supervisor.pids() == {"supervisor": os.getpid(), "0": 100, "1": 102}
        await house.stop()
        assert [worker.asked for worker in house.workers] == [["drain"], [], ["drain"]]

    play(scenario())


def test_one_that_dies_again_and_again_is_tried_less_and_less_often() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        for count in range(3, 7):
            house.workers[-1].age = 0.1
            house.workers[-1].end()
            await house.until(count)
        assert house.waits == [0.5, 1, 2, 4]
        house.workers[0].end()  # the other one's bad luck is not its own
        await house.until(7)
        assert house.waits[4:] == [0.0]
        await house.stop()

    play(scenario())


def test_a_system_without_processes_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.out_of = 3
        house.workers[0].end()
        await house.until(3)
        assert house.waits == [0.0, 0.5, 1, 2]
        await house.stop()

    play(scenario())
    assert "no process for worker 0; tried again in 2.0 s" in caplog.messages


def test_the_log_says_who_ended_and_how(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.workers[0].end("was killed by SIGSEGV")
        await house.until(3)
        await house.stop()

    play(scenario())
    assert caplog.messages == ["worker 0 (process 100) was killed by SIGSEGV; replaced in 0.0 s"]


def test_a_failed_start_is_the_first_failures_and_ends_the_others() -> None:
    async def scenario() -> None:
        house = House(instantly=False)
        await house.until(2)
        house.workers[0].serve()
        house.workers[1].fail("no model in here")
        with pytest.raises(WorkerFailed, match=r"^no model in here$"):
            await house.running
        assert house.workers[0].asked == ["drain"]
        assert (house.announced, house.lost) == ([], [])

    play(scenario())


def test_a_system_without_processes_fails_the_start() -> None:
    async def scenario() -> None:
        house = House()
        house.out_of = 1
        with pytest.raises(WorkerFailed, match="no process for worker 0"):
            await house.running

    play(scenario())


def test_a_stop_during_the_start_is_no_failure() -> None:
    async def scenario() -> None:
        house = House(instantly=False)
        await house.until(2)
        await house.stop()
        assert [worker.asked for worker in house.workers] == [["drain"], ["drain"]]
        assert house.announced == []

    play(scenario())


def test_all_workers_drain_at_the_same_time_and_none_is_replaced() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        for worker in house.workers:
            worker.drains = False
        house.stopped.set()
        await house.until(2)
        assert [worker.asked for worker in house.workers] == [["drain"], ["drain"]]
        for worker in house.workers:
            assert not house.running.done()
            worker.end("ended with exit code 0")
            await house.until(2)
        await house.running
        assert (len(house.workers), house.lost) == (2, [])

    play(scenario())


def test_a_stop_between_death_and_replacement_starts_nobody() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        waiting = asyncio.Event()

        async def forever(seconds: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        house.supervisor._sleep = forever
        house.workers[0].end()
        await waiting.wait()
        await house.stop()
        assert len(house.workers) == 2

    play(scenario())


def test_a_worker_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        house = House(grace_s=-10)  # the supervisor's own ten seconds on top make none
        await house.until(2)
        house.workers[1].drains = False
        await house.stop()
        assert house.workers[1].asked == ["drain", "kill"]

    play(scenario())
    assert caplog.messages == ["killing the workers that did not end within 0 s"]


def test_all_workers_are_told_to_rescan_also_those_that_start() -> None:
    """They may have read the folder already."""

    async def scenario() -> None:
        house = House(instantly=False)
        await house.until(2)
        house.workers[0].serve()
        house.supervisor.rescan()
        house.workers[1].serve()
        await house.until(2)
        house.supervisor.rescan()
        assert [worker.asked for worker in house.workers] == [["rescan", "rescan"], ["rescan", "rescan"]]
        await house.stop()

    play(scenario())


def test_after_an_edit_all_others_are_told_to_rescan_replacements_too() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.workers[0].on_edit()
        assert [worker.asked for worker in house.workers] == [[], ["rescan"]]
        house.workers[0].end()
        await house.until(3)
        house.workers[1].on_edit()
        house.workers[2].on_edit()
        assert [worker.asked for worker in house.workers] == [[], ["rescan", "rescan"], ["rescan"]]
        await house.stop()

    play(scenario())


def test_a_worker_that_says_nothing_for_long_is_killed_and_replaced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is stopped or hangs does not end by itself, and the system goes on to give it connections."""
    monkeypatch.setattr(supervising, "_TICK_S", 0)

    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.workers[0].silent_ticks = supervising._SILENT_TICKS - 1
        await house.until(2)
        assert house.workers[0].asked == []
        house.workers[0].silent = True
        await house.until(3)
        assert house.workers[0].asked == ["kill"]
        assert (house.lost, house.supervisor.pids()["0"]) == ([0], 102)
        await house.stop()
        assert [worker.asked for worker in house.workers[1:]] == [["drain"], ["drain"]]

    play(scenario())
    assert caplog.messages[0] == "worker 0 (process 100) is silent for 0 s; killed"


def test_a_worker_that_hangs_at_its_start_is_killed_later_and_fails_the_start(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open and prove many models takes longer than a worker that serves may be silent."""
    monkeypatch.setattr(supervising, "_TICK_S", 0)

    async def scenario() -> None:
        house = House(instantly=False)
        await house.until(2)
        house.workers[0].serve()
        house.workers[1].silent_ticks = supervising._SILENT_TICKS
        await house.until(2)
        assert house.workers[1].asked == []
        house.workers[1].silent_ticks = supervising._START_TICKS - 1
        house.workers[1].silent = True
        while not house.workers[1].asked:
            await asyncio.sleep(0)
        assert house.workers[1].asked == ["kill"]
        house.workers[1].fail("it was killed before it could serve")
        with pytest.raises(WorkerFailed, match="before it could serve"):
            await house.running

    play(scenario())
    assert caplog.messages[0] == "worker 1 (process 101) is silent for 0 s; killed"


def test_a_replacement_that_hangs_at_its_start_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_TICK_S", 0)

    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.instantly = False
        house.workers[0].end()
        await house.until(3)
        house.workers[2].silent_ticks = supervising._START_TICKS - 1
        house.workers[2].silent = True
        await house.until(4)
        assert (house.workers[2].asked, house.lost) == (["kill"], [0, 0])
        await house.stop()

    play(scenario())


def test_a_worker_that_is_killed_for_its_silence_is_killed_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may take its time to end what waits for a disk."""
    monkeypatch.setattr(supervising, "_TICK_S", 0)

    async def scenario() -> None:
        house = House()
        await house.until(2)
        house.workers[0].end = lambda how="": None
        house.workers[0].silent = True
        while house.workers[0].silent_ticks < 2 * supervising._SILENT_TICKS:
            await asyncio.sleep(0)
        assert house.workers[0].asked == ["kill"]
        del house.workers[0].end
        await house.stop()

    play(scenario())
    assert len(caplog.messages) == 1


def test_an_error_of_its_own_ends_everything_with_that_error() -> None:
    """A supervisor that no longer looks after its workers must not look as if it did."""

    async def scenario() -> None:
        house = House()
        await house.until(2)

        async def broken(seconds: float) -> None:
            raise RuntimeError("no clock")

        house.supervisor._sleep = broken
        house.workers[0].end()
        with pytest.raises(RuntimeError, match="no clock"):
            await house.running
        assert house.workers[1].asked == ["drain"]

    play(scenario())


def test_readiness_is_that_of_a_ready_worker_beside_each_workers_own() -> None:
    async def scenario() -> None:
        house = House()
        assert house.supervisor.ready() == {"ok": False, "state": "starting", "workers": {}}
        assert house.supervisor.live() == {"ok": True, "state": "starting", "workers": {}}
        await house.until(2)
        house.instantly = False
        house.workers[0].end()
        await house.until(3)
        assert house.supervisor.ready() == {
            "ok": True,
            "state": "serving",
            "models": {"flowers": 1},
            "workers": {"0": {"process": 102, **STARTING["ready"]}, "1": {"process": 101, **SERVING["ready"]}},
        }
        house.workers[1].facts = ENDED
        assert house.supervisor.ready()["ok"] is False
        await house.stop()
        assert (house.supervisor.ready()["ok"], house.supervisor.ready()["state"]) == (False, "draining")

    play(scenario())


def test_it_is_alive_as_long_as_one_worker_is() -> None:
    async def scenario() -> None:
        house = House()
        await house.until(2)
        assert house.supervisor.live() == {
            "ok": True,
            "state": "serving",
            "workers": {"0": {"process": 100, **SERVING["live"]}, "1": {"process": 101, **SERVING["live"]}},
        }
        house.workers[0].facts = ENDED
        assert house.supervisor.live()["ok"] is True
        house.workers[1].facts = ENDED
        assert house.supervisor.live()["ok"] is False
        await house.stop()
        assert (house.supervisor.live()["ok"], house.supervisor.live()["state"]) == (True, "draining")

    play(scenario())
