"""The gRPC server: our services, health and reflection on one port."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther.open_inference import open_inference_pb2
from anther.open_inference.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from anther.v1 import classifier_pb2
from anther.v1.classifier_pb2_grpc import add_ImageClassifierServicer_to_server
from service.config import Settings
from service.core.classifier import Classifier
from service.core.statistics import Statistics
from service.core.streams import BoundedStreams
from service.edge.arrivals import Arrivals
from service.edge.calls import Calls
from service.edge.places import Places
from service.rpc.guarded import MODEL, GuardedHandlers, Health, enable_reflection
from service.rpc.inference.config import Bounds
from service.rpc.inference.repository import Control
from service.rpc.inference.servicer import InferenceServicer
from service.rpc.instrumented import InstrumentedHandlers
from service.rpc.intake import Intake
from service.rpc.options import ENVELOPE_BYTES, server_options
from service.rpc.servicer import Servicer
from service.system.address import refuse_unusable, shown
from service.system.cores import usable_cores
from service.versions.reconcile import Change

if TYPE_CHECKING:
    from service.identity.certificates import Certificates

SERVICE = str(classifier_pb2.DESCRIPTOR.services_by_name["ImageClassifier"].full_name)
OPEN_INFERENCE = str(open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name)
_PROBES = 256  # calls of health and of reflection at once; a watcher stays as long as it likes
_FLUSH_S = 1.0  # for the last responses to leave, once every call is answered


class RpcServer:
    """Not listening until `start`; NOT_SERVING from `announce_stop`; `stop` waits for calls in progress."""

    def __init__(
        self,
        classifier: Classifier,
        calls: Calls,
        statistics: Statistics,
        settings: Settings,
        control: Control | None = None,
        certificates: "Certificates | None" = None,
    ) -> None:
        self._classifier = classifier
        request_bytes = settings.max_image_bytes + ENVELOPE_BYTES
        self._health = Health()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = grpc.aio.server(options=server_options(settings))
        self._calls = calls
        self._streams = BoundedStreams(_places(settings, classifier))
        images = Servicer(classifier, calls, self._streams)
        self.arrivals = Arrivals(settings.arrival_bytes, settings.arrival_s)
        intake = Intake(Places(settings.max_calls), self.arrivals, request_bytes)
        handlers = InstrumentedHandlers(self._server, calls, intake, images.resolve)
        add_ImageClassifierServicer_to_server(images, handlers)
        # As many images in a request as may wait: with more it would be refused whenever it comes.
        bounds = Bounds(settings.queue_limit, request_bytes, classifier.limits)
        self.inference = tensors = InferenceServicer(classifier, calls, self._streams, statistics, bounds, control)
        handlers = InstrumentedHandlers(self._server, calls, intake, tensors.resolve, tensors.weigh)
        add_GRPCInferenceServiceServicer_to_server(tensors, handlers)
        probes = Intake(Places(_PROBES), self.arrivals, request_bytes)
        watchers = Intake(Places(_PROBES), self.arrivals, request_bytes)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, GuardedHandlers(self._server, probes, watchers))
        files = (classifier_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR)
        enable_reflection(GuardedHandlers(self._server, probes, watchers, calls), (SERVICE, OPEN_INFERENCE), files)
        if settings.workers == 1:  # a supervisor has seen to it before
            refuse_unusable(settings.host, settings.grpc_port, "--grpc-port")
        self.port = self._add_port(shown(settings.host, settings.grpc_port), certificates)

    def _add_port(self, address: str, certificates: "Certificates | None") -> int:
        if certificates is None:
            return int(self._server.add_insecure_port(address))
        from service.rpc.tls import credentials  # `cryptography` is for those who ask for it

        return int(self._server.add_secure_port(address, credentials(certificates)))

    async def start(self) -> None:
        """Listen, and say SERVING for the server, the services and each model ('model:<name>')."""
        await self._server.start()
        self._loop = asyncio.get_running_loop()
        models = [f"{MODEL}{model.name}" for model in self._classifier.registry.live()]
        for name in ("", SERVICE, OPEN_INFERENCE, *models):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def changed(self, change: Change) -> None:
        """Tell health watchers of a model that comes or goes. From any thread, once the server has started."""
        if self._loop is None:
            return
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if change.serves else states.NOT_SERVING
        asyncio.run_coroutine_threadsafe(self._health.set(f"{MODEL}{change.name}", status), self._loop)

    async def announce_stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        self._streams.end()

    async def stop(self, grace_s: float) -> None:
        """End as soon as every call of ours is answered, at the latest after `grace_s` seconds; cancel what is left.

        Health watchers and unfinished requests do not delay it.
        """
        ends = time.monotonic() + grace_s
        await self._calls.quiet(ends)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._calls.idle.wait(), ends - time.monotonic())
        await self._server.stop(max(0.0, min(ends - time.monotonic(), _FLUSH_S)))


def _places(settings: Settings, classifier: Classifier) -> int:
    """Enough of a stream's requests to keep every lane busy, or the device with two batches; never the whole queue."""
    batch = max((model.engine.batch_sizes[-1] for model in classifier.registry.live()), default=1)
    enough = 4 + 2 * max(settings.lanes or usable_cores(), batch)
    return settings.stream_in_flight or max(1, min(enough, settings.queue_limit // 2))
