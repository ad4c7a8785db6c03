"""One of several serving processes, started as `python -m anther.program service.workers.worker`. See `spawned`."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

import uvloop

from anther.errors import AntherError
from service import logs
from service.app import App, serve
from service.config import Settings
from service.workers import shared_metrics
from service.workers.spawned import BEAT, EDITED, FACTS, FAILED, SERVING, Order

_REPORT_S = 0.5  # how old the facts and the shared gauges may be; Prometheus asks every few seconds


class Wire:
    """The two file descriptors that connect a worker with its supervisor."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders, self._reports = orders, reports
        self._unsent = b""
        os.set_blocking(reports, False)
        self.lost = False
        self.told_to_rescan = asyncio.Event()  # the folder of models
        self.stopped = asyncio.Event()  # set when the wire ends, and whenever the server is to stop

    def watch(self) -> None:
        asyncio.get_running_loop().add_reader(self._orders, self._read)

    @property
    def clear(self) -> bool:
        """Whether all reports have gone out."""
        return not self._unsent

    def report(self, kind: str, what: Any) -> None:
        """Never waits: where the pipe is full, as when the supervisor is stopped, the rest goes out later."""
        self._unsent += _line(kind, what)
        self._send()

    def report_end(self, kind: str, what: Any) -> None:
        """The last report, after the loop has ended; waits until the pipe has room."""
        os.set_blocking(self._reports, True)
        with suppress(BrokenPipeError), open(self._reports, "wb", closefd=False) as reports:
            reports.write(self._unsent + _line(kind, what))

    def _send(self) -> None:
        self._unsent = self._unsent[self._written() :]
        loop = asyncio.get_running_loop()
        if self._unsent:
            loop.add_writer(self._reports, self._send)
        else:
            loop.remove_writer(self._reports)

    def _written(self) -> int:
        """Write what the pipe takes. Returns the number of bytes."""
        try:
            return os.write(self._reports, self._unsent)
        except BlockingIOError:
            return 0
        except BrokenPipeError:  # the supervisor is gone, as the other descriptor tells
            return len(self._unsent)

    def _read(self) -> None:
        if os.read(self._orders, 4096):
            self.told_to_rescan.set()
        else:
            asyncio.get_running_loop().remove_reader(self._orders)
            self.lost = True
            self.stopped.set()


def main() -> None:
    line = sys.stdin.readline()
    if not line:
        return  # the supervisor was killed before it gave the order
    order = Order.from_json(line)
    logs.configure(order.settings.log_format)
    shared_metrics.join(order.metrics, order.slot)
    wire = Wire(sys.stdin.fileno(), os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no report
    try:
        uvloop.run(work(order.settings, wire))
    except AntherError as exc:
        wire.report_end(FAILED, str(exc))
        sys.exit(1)
    finally:
        if wire.lost:
            shared_metrics.remove(order.metrics)  # the supervisor is gone


async def work(settings: Settings, wire: Wire) -> None:
    """Serve until a signal or the end of the supervisor, and report."""
    tasks: list[asyncio.Task[None]] = []

    def announce(app: App) -> None:
        facts = app.facts()
        wire.report(FACTS, facts)
        wire.report(SERVING, app.serving())
        tasks.append(asyncio.create_task(_tell(app, wire, facts)))
        tasks.append(asyncio.create_task(_heed(app, wire)))

    wire.watch()
    try:
        await serve(settings, announce, wire.stopped, lambda: wire.report(EDITED, True))
    finally:
        for task in tasks:
            task.cancel()


async def _heed(app: App, wire: Wire) -> None:
    """Rescan when told to, also for what was told while the models were first loaded."""
    while True:
        await wire.told_to_rescan.wait()
        wire.told_to_rescan.clear()
        app.rescan()


async def _tell(app: App, wire: Wire, told: dict[str, dict[str, Any]]) -> None:
    """Report changed facts, or else that this process is alive; nothing while earlier reports are unsent."""
    while True:
        await asyncio.sleep(_REPORT_S)
        facts = app.facts()
        if not wire.clear:
            continue
        if facts == told:
            wire.report(BEAT, True)
        else:
            wire.report(FACTS, facts)
            told = facts


def _line(kind: str, what: Any) -> bytes:
    return f"{json.dumps({kind: what})}\n".encode()


if __name__ == "__main__":
    main()
