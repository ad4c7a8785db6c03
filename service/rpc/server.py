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
from service.edge.calls import Calls
from service.rpc.guarded import GuardedHandlers, Health, enable_reflection
from service.rpc.inference.config import Bounds
from service.rpc.inference.repository import Control
from service.rpc.inference.servicer import InferenceServicer
from service.rpc.instrumented import InstrumentedHandlers
from service.rpc.servicer import Servicer
from service.system.address import refuse_unusable, shown
from service.system.cores import usable_cores
from service.versions.reconcile import Change

if TYPE_CHECKING:
    from service.identity.certificates import Certificates

SERVICE = str(classifier_pb2.DESCRIPTOR.services_by_name["ImageClassifier"].full_name)
OPEN_INFERENCE = str(open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name)
_ENVELOPE_BYTES = 64 * 1024  # what a request may hold beside its image
_WINDOW_BYTES = 1024 * 1024  # of a request may come unasked: a usual image in one go, which 64 KB would not be
_SILENCE_S, _PATIENCE_S = 60.0, 20.0  # on a connection before it is pinged; until the ping must be answered
_CALLERS_PINGS_S = 10.0  # more often makes gRPC close the connection
_HANDSHAKE_S = 10.0  # for a new connection's TLS and settings
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
        request_bytes = settings.max_image_bytes + _ENVELOPE_BYTES
        self._health = Health()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", request_bytes),
                # A second server on the port must fail, not share the traffic; workers do share it.
                ("grpc.so_reuseport", int(settings.workers > 1)),
                ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
                ("grpc.http2.bdp_probe", 0),  # with a window this large its pings find out nothing of use
                ("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_S * 1000)),
                *_keepalive(),
            ],
        )
        self._calls = calls
        self._streams = BoundedStreams(_places(settings, classifier))
        images = Servicer(classifier, calls, self._streams)
        add_ImageClassifierServicer_to_server(images, InstrumentedHandlers(self._server, calls, images.resolve))
        # As many images in a request as may wait: with more it would be refused whenever it comes.
        bounds = Bounds(settings.queue_limit, request_bytes, classifier.limits)
        self.inference = tensors = InferenceServicer(classifier, calls, self._streams, statistics, bounds, control)
        handlers = InstrumentedHandlers(self._server, calls, tensors.resolve, tensors.weigh)
        add_GRPCInferenceServiceServicer_to_server(tensors, handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, GuardedHandlers(self._server))
        files = (classifier_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR)
        enable_reflection(GuardedHandlers(self._server, calls), (SERVICE, OPEN_INFERENCE), files)
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
        models = [f"model:{model.name}" for model in self._classifier.registry.live()]
        for name in ("", SERVICE, OPEN_INFERENCE, *models):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def changed(self, change: Change) -> None:
        """Tell health watchers of a model that comes or goes. From any thread, once the server has started."""
        if self._loop is None:
            return
        states = health_pb2.HealthCheckResponse
        status = states.SERVING if change.serves else states.NOT_SERVING
        asyncio.run_coroutine_threadsafe(self._health.set(f"model:{change.name}", status), self._loop)

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


def _keepalive() -> list[tuple[str, int]]:
    """Pings find callers whose machine lost its power or its network. Without them their connections, streams and
    unfinished uploads would be kept for two hours, gRPC's default. Callers may ping, too.
    """
    return [
        ("grpc.keepalive_time_ms", int(_SILENCE_S * 1000)),
        ("grpc.http2.ping_timeout_ms", int(_PATIENCE_S * 1000)),  # this ends the connection, not the next
        ("grpc.keepalive_timeout_ms", int(_PATIENCE_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", int(_CALLERS_PINGS_S * 1000)),
    ]


def _places(settings: Settings, classifier: Classifier) -> int:
    """Enough of a stream's requests to keep every lane busy, or the device with two batches; never the whole queue."""
    batch = max((model.engine.batch_sizes[-1] for model in classifier.registry.live()), default=1)
    enough = 4 + 2 * max(settings.lanes or usable_cores(), batch)
    return settings.stream_in_flight or max(1, min(enough, settings.queue_limit // 2))
