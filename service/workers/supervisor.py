"""Keeps a number of serving processes alive: a worker that ends or hangs is replaced until the server stops.

It knows nothing of gRPC or of models. The caller says what a worker is, so tests bring their own.
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

_LEEWAY_S = 10.0  # beyond the grace period, for closing the models; then a worker is killed
_TICK_S = 1.0
_SILENT_TICKS = 30  # without a report from a worker that serves, though it reports twice a second; then it is killed
_START_TICKS = 600  # the same for a worker that starts: it says nothing while it opens and proves its models

T = TypeVar("T")


class Worker(Protocol):
    """`spawned.Worker` describes each member."""

    slot: int
    pid: int
    facts: dict[str, dict[str, Any]]

    @property
    def serves(self) -> bool: ...

    async def serving(self) -> str: ...

    async def ended(self) -> str: ...

    def age_s(self) -> float: ...

    def tick(self) -> int: ...

    def rescan(self) -> None: ...

    def drain(self) -> None: ...

    def kill(self) -> None: ...


Spawn = Callable[[int, Callable[[], None]], Awaitable[Worker]]
"""A new worker for that slot, which calls the function when a client had it edit a policy.

Raises `WorkerFailed` where the system gives no process.
"""

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
        """Keep the workers until `stopped` is set. Calls `announce` with what they serve once all of them do.

        Raises `WorkerFailed` with the reason of the first worker that cannot start.
        """
        try:
            serving = await _unless(stopped, self._start())
            if serving is not None:
                self._state = "serving"
                announce(serving)
                await _unless(stopped, self._keep_all())
        finally:
            await self._stop()

    def rescan(self, asking: int | None = None) -> None:
        """Make the workers rescan the folder of models now; the one in the slot `asking` has done so."""
        for slot, worker in self._workers.items():
            if slot != asking:
                worker.rescan()

    def live(self) -> dict[str, Any]:
        """Not ok while no worker is up, as when every replacement dies at its start."""
        facts = [worker.facts["live"] for worker in list(self._workers.values())]
        return self._described("live", self._state != "serving" or any(fact["ok"] for fact in facts))

    def ready(self) -> dict[str, Any]:
        """Ready when one worker is. Its facts stand for the server, beside the facts of each worker."""
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
            self._workers[slot] = await self._spawned(slot)
        killing = asyncio.create_task(self._kill_silent())
        try:
            return (await asyncio.gather(*(worker.serving() for worker in self._workers.values())))[0]
        finally:
            killing.cancel()

    async def _spawned(self, slot: int) -> Worker:
        return await self._spawn(slot, partial(self.rescan, slot))

    async def _keep_all(self) -> None:
        await asyncio.gather(self._kill_silent(), *(self._keep(slot) for slot in self._workers))

    async def _kill_silent(self) -> None:
        """A process that is stopped or hangs does not end, and the kernel still gives it connections.

        Ticks are counted, not seconds: while this process itself was stopped it heard no worker.
        """
        while True:
            await asyncio.sleep(_TICK_S)
            for worker in self._workers.values():
                limit = _SILENT_TICKS if worker.serves else _START_TICKS
                if worker.tick() == limit:
                    silent_s = _TICK_S * limit
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
            self._workers[slot] = await self._respawn(slot, backoff)

    async def _respawn(self, slot: int, backoff: Backoff) -> Worker:
        while True:
            try:
                return await self._spawned(slot)
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
    """The work's result or error; where `stopped` is set first, the work is cancelled and the result is None."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait({working})
    return None
