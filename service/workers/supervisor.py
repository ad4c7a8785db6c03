"""Keeps a number of serving processes alive: a worker that ends or hangs is replaced, until all of them are to end.

It knows nothing of gRPC or of models; what a worker is comes from outside, so tests bring their own.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

from anther.backoff import Backoff
from service.errors import WorkerFailed

log = logging.getLogger(__name__)

_LEEWAY_S = 10.0  # beyond the grace period, for closing what was served; then a worker is killed
_TICK_S = 1.0
_SILENT_TICKS = 30  # without a word from a worker that serves, though it speaks twice a second; then it is killed

T = TypeVar("T")


class Worker(Protocol):
    """`spawned.Worker` says what each of these is."""

    slot: int
    pid: int
    facts: dict[str, dict[str, Any]]
    on_edit: Callable[[], None]

    async def serving(self) -> str: ...

    async def ended(self) -> str: ...

    def age_s(self) -> float: ...

    def tick(self) -> int: ...

    def look(self) -> None: ...

    def drain(self) -> None: ...

    def kill(self) -> None: ...


Spawn = Callable[[int], Awaitable[Worker]]
"""A new worker for that slot; `WorkerFailed` where the system gives no process."""

Sleep = Callable[[float], Awaitable[None]]


class Supervisor:
    """`count` workers. `on_loss` is called with the slot of each that ended unasked, before it is replaced."""

    def __init__(
        self, count: int, spawn: Spawn, on_loss: Callable[[int], None], grace_s: float, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._count = count
        self._spawn = spawn
        self._on_loss = on_loss
        self._patience_s = grace_s + _LEEWAY_S
        self._sleep = sleep
        self._workers: dict[int, Worker] = {}
        self._state = "starting"

    async def run(self, announce: Callable[[str], None], stopped: asyncio.Event) -> None:
        """Until `stopped` is set; `announce` is called with what the workers serve once all of them do.

        Raises `WorkerFailed` with what the first of them says that cannot start.
        """
        try:
            serving = await _unless(stopped, self._start())
            if serving is not None:
                self._state = "serving"
                announce(serving)
                await _unless(stopped, self._keep_all())
        finally:
            await self._stop()

    def look(self, asking: Worker | None = None) -> None:
        """Have the workers look at the folder of models at once, all but the one that asks for it, if one does."""
        for worker in self._workers.values():
            if worker is not asking:
                worker.look()

    def live(self) -> dict[str, Any]:
        """Fails while no worker is up, as when each next one dies at its start."""
        facts = [worker.facts["live"] for worker in list(self._workers.values())]
        return self._described("live", self._state != "serving" or any(fact["ok"] for fact in facts))

    def ready(self) -> dict[str, Any]:
        """One ready worker is enough; what it says holds for the server, beside what each of them says."""
        facts = [worker.facts["ready"] for worker in list(self._workers.values())]
        chosen = max(facts, key=lambda fact: bool(fact["ok"]), default={"ok": False})
        return {**chosen, **self._described("ready", self._state == "serving" and chosen["ok"])}

    def pids(self) -> dict[str, int]:
        workers = {str(slot): worker.pid for slot, worker in list(self._workers.items())}
        return {"supervisor": os.getpid(), **workers}

    def _described(self, kind: str, ok: bool) -> dict[str, Any]:
        workers = {
            str(slot): {"process": worker.pid, **worker.facts[kind]} for slot, worker in list(self._workers.items())
        }
        return {"ok": ok, "state": self._state, "workers": workers}

    async def _start(self) -> str:
        for slot in range(self._count):
            self._take_on(await self._spawn(slot))
        return (await asyncio.gather(*(worker.serving() for worker in self._workers.values())))[0]

    def _take_on(self, worker: Worker) -> None:
        worker.on_edit = partial(self.look, worker)
        self._workers[worker.slot] = worker

    async def _keep_all(self) -> None:
        await asyncio.gather(self._end_the_silent(), *(self._keep(slot) for slot in self._workers))

    async def _end_the_silent(self) -> None:
        """A process that is stopped or hangs does not end, and the system goes on to give it connections.

        By ticks, not by a clock: while this process itself was held up it heard nobody, which is no worker's fault.
        """
        while True:
            await asyncio.sleep(_TICK_S)
            for worker in self._workers.values():
                if worker.tick() == _SILENT_TICKS:
                    silent_s = _TICK_S * _SILENT_TICKS
                    log.error("worker %d (process %d) is silent for %.0f s; killed", worker.slot, worker.pid, silent_s)
                    worker.kill()

    async def _keep(self, slot: int) -> None:
        backoff = Backoff()
        while True:
            worker = self._workers[slot]
            how = await worker.ended()
            self._on_loss(slot)
            wait_s = backoff.after_run(worker.age_s())
            log.error("worker %d (process %d) %s; replaced in %.1f s", slot, worker.pid, how, wait_s)
            await self._sleep(wait_s)
            self._take_on(await self._respawn(slot, backoff))

    async def _respawn(self, slot: int, backoff: Backoff) -> Worker:
        while True:
            try:
                return await self._spawn(slot)
            except WorkerFailed as exc:
                wait_s = backoff.next_s()
                log.error("%s; tried again in %.1f s", exc, wait_s)
                await self._sleep(wait_s)

    async def _stop(self) -> None:
        """Ask all workers at once to finish what they accepted, and wait for them."""
        self._state = "draining"
        for worker in self._workers.values():
            worker.drain()
        ends = asyncio.gather(*(worker.ended() for worker in self._workers.values()))
        try:
            await asyncio.wait_for(asyncio.shield(ends), self._patience_s)
        except TimeoutError:
            log.error("killing the workers that did not end within %.0f s", self._patience_s)
            for worker in self._workers.values():
                worker.kill()
            await ends


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result or error; None, and the work given up, where `stopped` is set before."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait({working})
    return None
