"""One of several serving processes: `python -m service.workers.worker`, its supervisor at both ends. See `spawned`."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import Any

import uvloop

from bundle.errors import AntherError
from service import logs
from service.app import App, serve
from service.config import Settings
from service.workers import shared_metrics
from service.workers.spawned import FACTS, FAILED, SERVING, Order

_LOOK_S = 0.5  # how old the facts and the shared gauges may be; Prometheus asks every few seconds


class Wire:
    """The file descriptors that lead to the supervisor."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders, self._reports = orders, reports
        self.lost = False
        self.stopped = asyncio.Event()  # with the wire, and whenever the server is to stop

    def watch(self) -> None:
        asyncio.get_running_loop().add_reader(self._orders, self._read)

    def report(self, kind: str, what: Any) -> None:
        with suppress(BrokenPipeError):  # the supervisor is gone, as the other descriptor tells
            os.write(self._reports, f"{json.dumps({kind: what})}\n".encode())

    def _read(self) -> None:
        if not os.read(self._orders, 4096):
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
        wire.report(FAILED, str(exc))
        sys.exit(1)
    finally:
        if wire.lost:
            shared_metrics.remove(order.metrics)  # nobody else is left who would


async def work(settings: Settings, wire: Wire) -> None:
    """Serve until a signal or the end of the supervisor, and report."""
    looking: list[asyncio.Task[None]] = []

    def announce(app: App) -> None:
        wire.report(FACTS, app.facts())
        wire.report(SERVING, app.serving())
        looking.append(asyncio.create_task(_look(app, wire)))

    wire.watch()
    try:
        await serve(settings, announce, wire.stopped)
    finally:
        for task in looking:
            task.cancel()


async def _look(app: App, wire: Wire) -> None:
    """Tell news alone: a supervisor that is held up in a debugger or by Ctrl-Z reads nothing."""
    told = app.facts()
    while True:
        await asyncio.sleep(_LOOK_S)
        if (facts := app.facts()) != told:
            wire.report(FACTS, facts)
            told = facts


if __name__ == "__main__":
    main()
