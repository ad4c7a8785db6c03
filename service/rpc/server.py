"""The gRPC server: our service, health and reflection on one port."""

import asyncio
import contextlib
import time

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.address import refuse_unusable, shown
from service.classifier import Classifier
from service.config import Settings
from service.metrics import Metrics
from service.rpc.observed import Observed
from service.rpc.pb.anther.v1 import classifier_pb2
from service.rpc.pb.anther.v1.classifier_pb2_grpc import add_ImageClassifierServicer_to_server
from service.rpc.servicer import Servicer

SERVICE = str(classifier_pb2.DESCRIPTOR.services_by_name["ImageClassifier"].full_name)
_ENVELOPE_BYTES = 64 * 1024  # what a request may hold beside its image
_QUIET_S, _LONGEST_REFUSAL_S = 0.5, 5.0  # without a call, connections may close; callers who never rest wait for none
_FLUSH_S = 1.0  # for the last responses to leave, once every call is answered


class RpcServer:
    """Not listening until `start`; NOT_SERVING from `announce_stop`; `stop` waits for calls in progress."""

    def __init__(self, classifier: Classifier, metrics: Metrics, settings: Settings) -> None:
        self._classifier = classifier
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_image_bytes + _ENVELOPE_BYTES),
                ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share the traffic
            ],
        )
        self._observed = Observed(self._server, metrics, classifier.registry)
        add_ImageClassifierServicer_to_server(Servicer(classifier, metrics), self._observed)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = self._bind(settings.host, settings.grpc_port)

    async def start(self) -> None:
        """Listen, and say SERVING for the server, the service and each model ('model:<name>')."""
        await self._server.start()
        models = [f"model:{model.name}" for model in self._classifier.registry.live()]
        for name in ("", SERVICE, *models):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def announce_stop(self) -> None:
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """End as soon as every call of ours is answered, at the latest after `grace_s` seconds; cancel what is left.

        So neither a health watcher nor half a request holds up the end.
        """
        ends = time.monotonic() + grace_s
        await self._let_callers_leave(min(ends, time.monotonic() + _LONGEST_REFUSAL_S))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._observed.idle.wait(), ends - time.monotonic())
        await self._server.stop(max(0.0, min(ends - time.monotonic(), _FLUSH_S)))

    async def _let_callers_leave(self, latest: float) -> None:
        """Once gRPC closes, a call that crosses its notice ends as CANCELLED, which no client takes for 'ask another'.

        Until callers have gone, the draining classifier refuses them with UNAVAILABLE.
        """
        while (now := time.monotonic()) < min(latest, self._observed.last_call + _QUIET_S):
            await asyncio.sleep(min(latest, self._observed.last_call + _QUIET_S) - now)

    def _bind(self, host: str, port: int) -> int:
        refuse_unusable(host, port, "--grpc-port")
        return int(self._server.add_insecure_port(shown(host, port)))
