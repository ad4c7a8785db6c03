"""The composition root: builds every part, starts them in order, and takes them down in the reverse order."""

import asyncio
import logging
import signal
import time
from typing import Any

import uvloop

from bundle.preprocessing import Limits
from bundle.repository import Repository
from service.address import shown
from service.classifier import Classifier
from service.config import Settings
from service.cores import usable_cores
from service.engine import OnnxEngine, check_runtime
from service.http.ops import OpsServer
from service.lanes import Lanes
from service.memory import keep_freed_memory
from service.metrics import Metrics
from service.registry import Registry
from service.rpc.server import RpcServer

log = logging.getLogger(__name__)


class App:
    """One server. Start: operations port → models → gRPC. Stop: NOT_SERVING → refuse → drain → close."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._registry = Registry(
            Repository(settings.models), lambda model: OnnxEngine(model, settings.device), settings.default_model
        )
        limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._lanes = Lanes(settings.lanes or usable_cores(), settings.queue_limit, settings.queue_bytes)
        self._classifier = Classifier(self._registry, self._lanes, limits)
        self._state = "starting"
        self._metrics.watch(lambda: self._lanes.waiting, lambda: self._lanes.waiting + self._lanes.running)
        self._ops: OpsServer | None = None
        self._rpc: RpcServer | None = None

    async def start(self) -> None:
        """Raises `PortUnavailable`, `NoModelReady` and what opening an engine raises."""
        self._ops = OpsServer(
            self._settings.host, self._settings.ops_port, self._metrics.registry, self._liveness, self._readiness
        )
        self._registry.load_all()
        for model in self._registry.live():
            self._metrics.loaded(model)
        for which in self._registry.refused:
            name, _, version = which.rpartition("/")
            self._metrics.refused_version(name, version)
        self._rpc = RpcServer(self._classifier, self._metrics, self._settings)
        await self._rpc.start()
        self._state = "serving"

    async def stop(self) -> None:
        """Every accepted request is answered, as far as the grace period reaches. Also after a failed start."""
        deadline = time.monotonic() + self._settings.grace_s
        self._state = "draining"
        self._classifier.drain()
        if self._rpc is not None:
            await self._rpc.announce_stop()
            await self._rpc.stop(max(0.0, deadline - time.monotonic()))
        await asyncio.to_thread(self._lanes.close)
        self._registry.close()
        if self._ops is not None:
            await asyncio.to_thread(self._ops.close)

    def banner(self) -> str:
        """Where it listens and what it serves, in one line."""
        assert self._rpc is not None
        assert self._ops is not None
        grpc, ops = (shown(self._settings.host, port) for port in (self._rpc.port, self._ops.port))
        models = ", ".join(
            f"{model.name}/{model.version} on {model.engine.provider}" for model in self._registry.live()
        )
        return f"Anther is ready: gRPC {grpc}, operations http://{ops}, {models}"

    def _liveness(self) -> dict[str, Any]:
        return {"ok": self._lanes.alive() or self._state == "draining", "state": self._state}

    def _readiness(self) -> dict[str, Any]:
        return {
            "ok": self._state == "serving",
            "state": self._state,
            "models": {model.name: model.version for model in self._registry.live()},
            "refused": dict(self._registry.refused),
        }


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    check_runtime()
    keep_freed_memory()
    uvloop.run(_serve(settings))  # a sixth less CPU for a call than asyncio's own loop


async def _serve(settings: Settings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    app = App(settings)
    try:
        await app.start()
        print(app.banner(), flush=True)  # noqa: T201 - how callers learn the ports
        await stopped.wait()
        log.info("draining: accepted requests have %.0f s to finish", settings.grace_s)
    finally:
        await app.stop()
    log.info("stopped")
