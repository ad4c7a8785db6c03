"""The composition root of several serving processes: one set of ports, one page of metrics, one supervisor.

Only the workers import gRPC and hold models.
"""

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

from service.config import Settings
from service.http.ops import OpsServer
from service.identity.follower import Follower, followed_access
from service.system import hangup
from service.system.address import Ports, banner, reserve
from service.system.cores import usable_cores
from service.workers import shared_metrics
from service.workers import spawned as workers
from service.workers.supervisor import Supervisor

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises `PortUnavailable` and `WorkerFailed`."""
    with contextlib.ExitStack() as stack:

        def reserved(port: int, option: str) -> int:
            return int(stack.enter_context(reserve(settings.host, port, option)).getsockname()[1])

        grpc = reserved(settings.grpc_port, "--grpc-port")
        http = None if settings.http_port is None else reserved(settings.http_port, "--http-port")
        folder = stack.enter_context(shared_metrics.folder())
        asyncio.run(_supervise(replace(settings, grpc_port=grpc, http_port=http), folder))


def share(settings: Settings, cores: int) -> Settings:
    """The settings of one worker: the ports are common; what is a total is divided and rounded up."""

    def part(whole: int) -> int:
        return math.ceil(whole / settings.workers)

    return replace(
        settings,
        http_connections=part(settings.http_connections),
        lanes=part(settings.lanes or cores),
        slow_lanes=part(settings.slow_lanes or cores),
        decoders=part(settings.decoders or cores),
        queue_limit=part(settings.queue_limit),
        queue_bytes=part(settings.queue_bytes),
        max_calls=part(settings.max_calls),
        grpc_connections=part(settings.grpc_connections),
        arrival_bytes=part(settings.arrival_bytes),
    )


async def _supervise(settings: Settings, folder: Path) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    each = share(settings, usable_cores())

    async def spawn(slot: int, on_edit: Callable[[], None]) -> workers.Worker:
        return await workers.start(workers.Order(slot, each, folder), on_edit)

    def lost(slot: int) -> None:
        shared_metrics.leave(folder, slot)
        restarts.inc()

    supervisor = Supervisor(settings.workers, spawn, lost, settings.grace_s)
    page = shared_metrics.page(folder, supervisor.pids)
    restarts = _restarts(page)
    access, sources = followed_access(settings, 1) if settings.ops_access == "tokens" else (None, [])
    follower = Follower(sources, _told_by_workers)
    ops = OpsServer(settings.host, settings.ops_port, page, supervisor.live, supervisor.ready, access)
    follower.start()

    def announce(serving: str) -> None:
        what = f"{serving}, {settings.workers} workers"
        ports = Ports(settings.http_port, settings.grpc_port, ops.port)
        line = banner(settings.host, ports, what, tls=bool(settings.tls_cert))
        print(line, flush=True)  # noqa: T201 - how callers learn the ports

    try:
        with hangup.heeded(supervisor.rescan):
            await supervisor.run(announce, stopped)
    finally:
        await asyncio.to_thread(follower.close)
        await asyncio.to_thread(ops.close)
    log.info("stopped")


def _told_by_workers(files: str, in_use: bool) -> None:
    """Each worker follows the same file and has the metric."""


def _restarts(registry: CollectorRegistry) -> Counter:
    return Counter("anther_worker_restarts", "Workers that ended unasked and were replaced", registry=registry)
