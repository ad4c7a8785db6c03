"""A serving process as its supervisor sees it: started afresh, given one order, heard until it ends.

Standard input carries the order, then a line for each rescan of the folder of models; its end means that the
supervisor is gone. On standard output the worker reports, one JSON object a line: what it serves, once; facts, when
they change; why it cannot start; that a client had it edit a policy; and otherwise, regularly, that it is alive.
"""

import asyncio
import contextlib
import json
import logging
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from anther import program
from service.config import Settings
from service.errors import WorkerFailed
from service.system import hangup

log = logging.getLogger(__name__)

SERVING, FACTS, FAILED, EDITED, BEAT = "serving", "facts", "failed", "edited", "beat"
"""A report's one key."""

_STARTING = {"live": {"ok": True, "state": "starting"}, "ready": {"ok": False, "state": "starting"}}
_ENDED = {"live": {"ok": False, "state": "ended"}, "ready": {"ok": False, "state": "ended"}}
_RESCAN = b"rescan\n"
_MAX_REPORT = 2**24  # bytes; it has a sentence for each refused version


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told: its place among the workers, how to serve, and where to count."""

    slot: int
    settings: Settings
    metrics: Path

    def to_json(self) -> str:
        return json.dumps({"slot": self.slot, "settings": asdict(self.settings), "metrics": self.metrics}, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Order":
        order = json.loads(text)
        defaults, given = Settings(), order["settings"]
        settings = {
            field.name: given[field.name] and type(getattr(defaults, field.name))(given[field.name])
            for field in fields(Settings)
        }
        return cls(order["slot"], Settings(**settings), Path(order["metrics"]))


async def start(order: Order, on_edit: Callable[[], None]) -> "Worker":
    """A new process with this one's search path, and nothing of its memory: gRPC does not survive a fork.

    `on_edit` is as for `Worker`.

    Raises `WorkerFailed` where the system gives none.
    """
    try:
        with hangup.held_back():
            process = await asyncio.create_subprocess_exec(
                *program.command("service.workers.worker"),
                stdin=PIPE,
                stdout=PIPE,
                limit=_MAX_REPORT,
                env=program.environment(),
                start_new_session=True,  # Ctrl-C is for the supervisor alone; it lets the workers finish
            )
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise WorkerFailed(order.slot, f"the system gives no process for worker {order.slot} ({reason})") from exc
    assert process.stdin is not None
    process.stdin.write(f"{order.to_json()}\n".encode())
    return Worker(order.slot, process, on_edit)


class Worker:
    """`facts` are the last that it reported: 'live' and 'ready', as the operations port has them.

    `on_edit` is called when a client had it edit a policy.
    """

    def __init__(self, slot: int, process: Process, on_edit: Callable[[], None]) -> None:
        self.slot = slot
        self.pid = process.pid
        self.facts: dict[str, dict[str, Any]] = _STARTING
        self._on_edit = on_edit
        self._process = process
        self._started = time.monotonic()
        self._serving: str | None = None
        self._failure = ""
        self._silent_ticks = 0
        self._reported = asyncio.Event()
        self._end = asyncio.create_task(self._listen(), name=f"worker-{slot}")

    @property
    def serves(self) -> bool:
        return self._serving is not None

    async def serving(self) -> str:
        """Wait until it serves, and return what it serves, in the banner's words. Raises `WorkerFailed`."""
        await self._reported.wait()
        if self._serving is None:
            raise WorkerFailed(self.slot, self._failure)
        return self._serving

    async def ended(self) -> str:
        """Wait until it has ended, and return how, in words that follow 'worker 0'."""
        return await asyncio.shield(self._end)

    def age_s(self) -> float:
        return time.monotonic() - self._started

    def tick(self) -> int:
        """Called regularly: the number of calls since its last report, this one included; 0 once it has ended."""
        self._silent_ticks = 0 if self._end.done() else self._silent_ticks + 1
        return self._silent_ticks

    def rescan(self) -> None:
        """Make it rescan the folder of models now, or once it serves, which a signal would not wait for."""
        assert self._process.stdin is not None
        if self._process.returncode is None:
            self._process.stdin.write(_RESCAN)

    def drain(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            self._process.send_signal(number)

    async def _listen(self) -> str:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._silent_ticks = 0
            self._hear(json.loads(line))
        how = ending(await self._process.wait())
        self.facts = _ENDED
        self._reported.set()
        if self._failure:
            return f"could not start ({self._failure})"
        self._failure = f"worker {self.slot} {how} before it could serve; the log may say why"
        return how

    def _hear(self, report: dict[str, Any]) -> None:
        ((kind, what),) = report.items()
        if kind == FACTS:
            self._note(what)
        elif kind == EDITED:
            self._on_edit()
        elif kind in (SERVING, FAILED):
            self._serving, self._failure = report.get(SERVING), report.get(FAILED, "")
            self._reported.set()

    def _note(self, facts: dict[str, dict[str, Any]]) -> None:
        self.facts = facts
        if not facts["live"]["ok"]:
            log.error("worker %d (process %d) cannot go on: %s", self.slot, self.pid, facts["live"])
            self.kill()


def ending(code: int) -> str:
    """How a process ended, by the exit code that asyncio gives: negative for a signal."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
