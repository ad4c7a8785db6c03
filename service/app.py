"""The composition root: builds every part, starts them in order, and takes them down in the reverse order."""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import uvloop

from bundle.preprocessing import Limits
from bundle.repository import Repository
from service.assembly import identity, opener, scheduler, tracing
from service.config import Settings
from service.core.classifier import Classifier
from service.core.recorder import Recorder
from service.core.shadow import Shadow
from service.core.shadow_worker import ShadowWorker
from service.core.statistics import Statistics
from service.edge.calls import Calls
from service.engines.engine import Engine
from service.engines.runtime import check_runtime, usable_device
from service.http.api import api_routes
from service.http.inference.routes import inference_routes
from service.http.ops import OpsServer
from service.http.server import HttpServer
from service.metrics import Metrics
from service.rpc.server import RpcServer
from service.system import hangup
from service.system.address import Ports, banner
from service.system.cores import usable_cores
from service.system.memory import give_back, give_back_when_quiet, keep_freed_memory
from service.versions.control import PolicyControl, no_others
from service.versions.reconcile import Change
from service.versions.registry import Registry
from service.versions.watcher import Inbox, Watcher

log = logging.getLogger(__name__)


class App:
    """One server. Start: operations port → models → gRPC and HTTP. Stop: NOT_SERVING → refuse → drain → close.

    With several workers in the settings it is one of them, and the supervisor has the operations port. `on_edit` is
    called when a client has edited a policy, so that the other workers follow.
    """

    def __init__(self, settings: Settings, on_edit: Callable[[], None] = no_others) -> None:
        self._settings = settings
        self._on_edit = on_edit
        self._metrics = Metrics(shared=settings.workers > 1)
        self._identity = identity(settings, self._metrics)
        self.device = device = usable_device(settings.device)
        inbox = Inbox()
        self._registry = Registry(
            Repository(settings.models), opener(settings, device), settings.default_model, self._changed, inbox.put
        )
        limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._cores = usable_cores()
        self._tracing = None if not settings.otlp_endpoint else tracing(settings.otlp_endpoint, settings.trace_share)
        self._scheduler = scheduler(settings, device, self._batch, self._metrics.decoder_ended)
        shadow_worker = ShadowWorker(limits, precision=settings.precision if device == "cpu" else "fp32")
        self._shadow = Shadow(self._registry, shadow_worker, self._metrics.shadowed, self._core_to_spare)
        self._statistics = Statistics()
        self._recorder = Recorder((self._metrics, self._statistics))
        self._classifier = Classifier(self._registry, self._scheduler, limits, self._recorder, self._shadow.copy)
        begin = None if self._tracing is None else self._tracing.begin
        self._calls = Calls(self._recorder, self._registry, begin, self._identity.access)
        self._watcher = Watcher(self._registry, settings.watch_s, inbox)
        self._state = "starting"
        self._metrics.watch(
            lambda: self._scheduler.waiting,
            lambda: self._scheduler.waiting + self._scheduler.running,
            lambda: self._scheduler.slow_waiting,
        )
        self._ops: OpsServer | None = None
        self._rpc: RpcServer | None = None
        self._http: HttpServer | None = None
        self._quiet: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises `PortUnavailable`, `NoModelReady` and what opening an engine raises."""
        if self._settings.workers == 1:
            self._ops = OpsServer(
                self._settings.host,
                self._settings.ops_port,
                self._metrics.registry,
                self._liveness,
                self._readiness,
                self._identity.access if self._settings.ops_access == "tokens" else None,
            )
        self._registry.load_all()
        control = PolicyControl(self._registry, self._watcher, self._on_edit) if self._settings.control else None
        certificates = self._identity.certificates
        self._rpc = RpcServer(self._classifier, self._calls, self._statistics, self._settings, control, certificates)
        if self._settings.http_port is not None:
            routes = [
                *api_routes(self._classifier, self._calls),
                *inference_routes(self._rpc.inference, self._calls, self._settings.cors.split()),
            ]
            port = self._settings.http_port
            self._http = HttpServer(routes, self._calls, self._rpc.arrivals, self._settings, port, certificates)
        if self._http is not None:
            await self._http.start()
        await self._rpc.start()
        self._watcher.start()
        self._identity.follower.start()
        self._shadow.start()
        self._quiet = asyncio.create_task(give_back_when_quiet(self._busy))
        self._state = "serving"

    async def stop(self) -> None:
        """Answer every accepted request within the grace period, then close. Works after a failed start too."""
        deadline = time.monotonic() + self._settings.grace_s
        self._state = "draining"
        self._classifier.drain()
        if self._rpc is not None:
            await self._rpc.announce_stop()
        edges = [edge for edge in (self._http, self._rpc) if edge is not None]
        await asyncio.gather(*(edge.stop(max(0.0, deadline - time.monotonic())) for edge in edges))
        if self._quiet is not None:
            self._quiet.cancel()
        await asyncio.to_thread(self._scheduler.close)
        await asyncio.to_thread(self._shadow.close)
        await asyncio.to_thread(self._watcher.close)
        await asyncio.to_thread(self._identity.follower.close)
        self._registry.close()
        if self._ops is not None:
            await asyncio.to_thread(self._ops.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    def rescan(self) -> None:
        """Rescan the folder of models now, on another thread; not while draining, which a new version would delay."""
        if self._state != "draining":
            self._watcher.rescan()

    def banner(self) -> str:
        """Where it listens and what it serves, in one line."""
        assert self._rpc is not None
        assert self._ops is not None
        http = None if self._http is None else self._http.port
        ports = Ports(http, self._rpc.port, self._ops.port)
        return banner(self._settings.host, ports, self.serving(), tls=bool(self._settings.tls_cert))

    def serving(self) -> str:
        live = self._registry.live()
        return ", ".join(f"{model.name}/{model.version} on {model.engine.provider}" for model in live) or "no model"

    def facts(self) -> dict[str, dict[str, Any]]:
        """For a supervisor that asks regularly; this also updates the gauges that it shows."""
        self._metrics.sample()
        return {"live": self._liveness(), "ready": self._readiness()}

    def _changed(self, change: Change) -> None:
        """Tell the parts that show what serves. Called by whichever thread rescanned the folder."""
        self._metrics.changed(change)
        self._recorder.changed(change)
        if self._rpc is not None:
            self._rpc.changed(change)

    def _batch(self, engine: Engine, rows: int) -> object:
        """The batch's span, where requests are traced."""
        self._metrics.batch(engine, rows)
        return None if self._tracing is None else self._tracing.batch(rows)

    def _core_to_spare(self) -> bool:
        return self._scheduler.waiting + self._scheduler.running < self._cores

    def _busy(self) -> bool:
        reading = self._rpc is not None and self._rpc.arrivals.busy
        return reading or self._scheduler.waiting + self._scheduler.running > 0

    def _liveness(self) -> dict[str, Any]:
        return {"ok": self._scheduler.alive() or self._state == "draining", "state": self._state}

    def _readiness(self) -> dict[str, Any]:
        return {
            "ok": self._state == "serving",
            "state": self._state,
            "models": {name: route.stable.version for name, route in self._registry.routes().items()},
            "refused": self._registry.refused,
            **({"policy_errors": self._registry.policy_errors} if self._registry.policy_errors else {}),
        }


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""

    def announce(app: App) -> None:
        print(app.banner(), flush=True)  # noqa: T201 - how callers learn the ports

    uvloop.run(serve(settings, announce, asyncio.Event()))  # a sixth less CPU for a call than asyncio's own loop


async def serve(
    settings: Settings,
    announce: Callable[[App], None],
    stopped: asyncio.Event,
    on_edit: Callable[[], None] = no_others,
) -> None:
    """Announce when ready; serve until `stopped` is set, which SIGTERM and SIGINT do; then drain.

    SIGHUP makes it rescan the folder of models. `on_edit` is as for `App`.
    """
    check_runtime()
    keep_freed_memory()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    app = App(settings, on_edit)
    with hangup.heeded(app.rescan):
        try:
            await app.start()
            # Modules and models live as long as the process; searching them for garbage would stall requests.
            gc.collect()
            gc.freeze()
            give_back()  # what opening and proving the models took for a moment
            announce(app)
            await stopped.wait()
            log.info("draining: accepted requests have %.0f s to finish", settings.grace_s)
        finally:
            await app.stop()
    log.info("stopped")
