"""Servers to ask: the real gRPC server in this process, with an engine that tests can hold up, or a whole process."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service.assembly import identity
from service.config import Settings
from service.core.classifier import Classifier
from service.core.recorder import Recorder
from service.core.statistics import Statistics
from service.edge.calls import Calls
from service.engines.engine import open_on_cpu
from service.http.api import api_routes
from service.http.inference.routes import inference_routes
from service.http.server import HttpServer
from service.identity.follower import Follower
from service.metrics import Metrics
from service.rpc.server import RpcServer
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.versions.registry import Registry

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
PATIENCE_S = 60  # how long a test waits for what must happen, however busy the machine
_BANNER = re.compile(r"(?:HTTP (?P<http>https?://\S+), )?gRPC (\S+), operations (http://\S+),")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class GatedEngine:
    """The real engine behind a gate: while `gate` is cleared, whoever enters waits, and its lane with it."""

    def __init__(self, bundle: Bundle) -> None:
        self._inner = open_on_cpu(bundle)
        self.provider, self.batch_sizes = self._inner.provider, self._inner.batch_sizes
        self.precision = self._inner.precision
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.runs = 0
        self.error: Exception | None = None

    def run(self, parts: Any, evidence: bool = False) -> Any:
        self.runs += 1
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return self._inner.run(parts, evidence)

    def close(self) -> None:
        self._inner.close()


@dataclass
class Edge:
    """Both ports of a running server, and a channel to gRPC's."""

    port: int
    channel: grpc.Channel
    metrics: Metrics
    statistics: Statistics
    lanes: Lanes
    classifier: Classifier
    server: RpcServer
    engines: list[GatedEngine]
    http: HttpServer
    follower: Follower
    stub: ImageClassifierStub = field(init=False)

    def __post_init__(self) -> None:
        self.stub = ImageClassifierStub(self.channel)

    @property
    def engine(self) -> GatedEngine:
        return self.engines[0]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no answer leaves the engine."""
        for engine in self.engines:
            engine.gate.clear()
        try:
            yield
        finally:
            for engine in self.engines:
                engine.gate.set()

    def occupied(self, call: Callable[[], Any]) -> Any:
        """Start `call` while held, and return when its picture is in the engine."""
        while self.engine.entered.acquire(blocking=False):
            pass
        pending = call()
        assert self.engine.entered.acquire(timeout=PATIENCE_S)
        return pending

    def sample(self, name: str, **labels: str) -> float:
        if name.startswith(("anther_requests", "anther_request_duration")):
            labels = {"protocol": "grpc", **labels}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


class Callers:
    """Threads that ask without pause, each over its own connection, until a call does not end as OK."""

    COUNT = 6

    def __init__(self, target: str, picture: bytes) -> None:
        self.ends: Counter[str] = Counter()
        self.busy = threading.Semaphore(0)
        self._picture = picture
        self._threads = [threading.Thread(target=self._ask, args=(target,)) for _ in range(self.COUNT)]
        for thread in self._threads:
            thread.start()
        for _ in range(5 * self.COUNT):
            assert self.busy.acquire(timeout=PATIENCE_S)

    def finish(self) -> Counter[str]:
        """How the calls ended, when every caller has been refused."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        return self.ends

    def _ask(self, target: str) -> None:
        with grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, end = ImageClassifierStub(channel), "OK"
            while end == "OK":
                try:
                    stub.Classify(pb.ClassifyRequest(image=self._picture), timeout=PATIENCE_S)
                except grpc.RpcError as error:
                    end = error.code().name
                self.ends[end] += 1
                self.busy.release()


@dataclass(frozen=True)
class Failure:
    """What a client sees of a failed call."""

    code: str
    reason: str
    message: str
    metadata: dict[str, str]
    retry_after_s: float | None


class StartEdge(Protocol):
    def __call__(self, models: Path | None = None, **settings: Any) -> Edge: ...


class Eventually(Protocol):
    def __call__(self, holds: Callable[[], bool]) -> None: ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """`eventually(lambda: …)` waits for what another thread is about to do and signals to nobody."""

    def wait(holds: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < ends, "it never came true"
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """`run(coroutine)` on one event loop, which turns in a thread of its own as long as the tests do."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(PATIENCE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, publish_bundle) -> Path:
    """A folder with the model 'flowers', version 1, that nobody writes to."""
    root = tmp_path_factory.mktemp("models")
    publish_bundle(root)
    return root


@pytest.fixture(scope="session")
def pictures(make_picture) -> dict[str, bytes]:
    """Label of the test model → a picture that it gives that label."""
    return {"daisy": make_picture(RED), "tulips": make_picture(GREEN), "roses": make_picture(BLUE)}


@pytest.fixture
def start_edge(run: Run, models: Path) -> Iterator[StartEdge]:
    """`start_edge(models, queue_limit=…, controlled_by=…)`: both edges of a server, with one lane unless told."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path | None = None, **options: Any) -> Edge:
            control = options.pop("controlled_by", None)
            settings = Settings(
                models=folder or models, http_port=None, grpc_port=0, ops_port=0, **{"lanes": 1, **options}
            )
            edge = run(_edge(settings, control))
            stack.callback(_stop, run, edge)
            return edge

        yield start


async def _edge(settings: Settings, control: Any) -> Edge:
    engines: list[GatedEngine] = []

    def open_engine(bundle: Bundle) -> GatedEngine:
        engines.append(GatedEngine(bundle))
        return engines[-1]

    servers: list[RpcServer] = []
    registry = Registry(
        Repository(settings.models),
        open_engine,
        settings.default_model,
        lambda change: [server.changed(change) for server in servers],
    )
    registry.load_all()
    lanes = Lanes(settings.lanes, Bounds(settings.queue_limit, settings.queue_bytes))
    limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
    metrics, statistics = Metrics(), Statistics()
    recorder = Recorder((metrics, statistics))
    classifier = Classifier(registry, lanes, limits, recorder)
    who = identity(settings, metrics)
    calls = Calls(recorder, registry, access=who.access)
    server = RpcServer(classifier, calls, statistics, settings, control, who.certificates)
    servers.append(server)
    await server.start()
    routes = [*api_routes(classifier, calls), *inference_routes(server.inference, calls)]
    http = HttpServer(routes, calls, server.arrivals, settings, 0, who.certificates)
    await http.start()
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options)
    return Edge(server.port, channel, metrics, statistics, lanes, classifier, server, engines, http, who.follower)


def _stop(run: Run, edge: Edge) -> None:
    edge.channel.close()
    run(edge.http.stop(0))
    run(edge.server.stop(0))
    edge.lanes.close()
    edge.classifier.registry.close()


@pytest.fixture(scope="session")
def failure_of() -> Callable[[Callable[[], Any]], Failure]:
    """`failure_of(lambda: call(…))`: the status of a call that must fail."""

    def failure(call: Callable[[], Any]) -> Failure:
        with pytest.raises(grpc.RpcError) as raised:
            call()
        return _failure(raised.value)

    return failure


def _failure(error: Any) -> Failure:
    whole = status_pb2.Status.FromString(dict(error.trailing_metadata()).get("grpc-status-details-bin", b""))
    info, retry, retry_after_s = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    for detail in whole.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert not whole.details or (whole.code, whole.message) == (error.code().value[0], error.details())
    assert not whole.details or info.domain == "anther"
    return Failure(error.code().name, info.reason, error.details(), dict(info.metadata), retry_after_s)


@dataclass
class Server:
    """`anther serve` as users start it: a process of its own."""

    process: "subprocess.Popen[str]"
    target: str
    operations: str
    errors: Path
    http: str = ""  # where the options ask for it

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code after the signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start_server(models: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`start_server("--lanes", "1", models=…)` returns when the server has printed its ports."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, models: Path = models) -> Server:
            errors = tmp_path / "stderr.txt"
            command = [sys.executable, "-m", "anther", "serve", "--models", str(models)]
            with errors.open("w") as file:
                process = subprocess.Popen(
                    [*command, "--grpc-port", "0", "--ops-port", "0", *options],
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            found = _BANNER.search(process.stdout.readline())
            assert found, errors.read_text()
            return Server(process, found[2], found[3], errors, found["http"] or "")

        yield start


@pytest.fixture(scope="session")
def callers() -> type[Callers]:
    """`callers(target, picture)` asks without pause; `finish()` tells how the calls ended."""
    return Callers


@pytest.fixture(scope="session")
def fetch() -> Callable[[str], tuple[int, Any]]:
    """`fetch(url)` gives the status and the JSON of a page of the operations port."""
    return _fetch


def _fetch(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
