"""The whole server: start, readiness, and an end that loses nothing that it accepted."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bundle.repository import Bundle, Repository
from service import app
from service.app import App
from service.client import Client
from service.config import Settings
from service.errors import NoModelReady, PortUnavailable
from service.rpc.pb.anther.v1 import classifier_pb2 as pb
from service.rpc.pb.anther.v1.classifier_pb2_grpc import ImageClassifierStub

PATIENCE_S = 60
CALLERS = 6
SERVE = [sys.executable, "-m", "anther", "serve"]


def fetch(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


class Callers:
    """Threads that ask without pause, each over its own connection, until a call does not end as OK."""

    def __init__(self, target: str, picture: bytes) -> None:
        self.ends: Counter[str] = Counter()
        self.busy = threading.Semaphore(0)
        self._picture = picture
        self._threads = [threading.Thread(target=self._ask, args=(target,)) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()
        for _ in range(5 * CALLERS):
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


# In this process


class Banner(io.StringIO):
    """Standard output that tells when the server says that it is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def flush(self) -> None:
        self.ready.set()


@pytest.fixture
def settings(models: Path) -> Settings:
    return Settings(models=models, grpc_port=0, ops_port=0, lanes=2, grace_s=PATIENCE_S)


def addresses(banner: str) -> tuple[str, str]:
    """gRPC target and operations URL from the line that a started server prints."""
    found = re.fullmatch(
        r"Anther is ready: gRPC (\S+), operations (http://\S+), flowers/1 on CPUExecutionProvider\n?", banner
    )
    assert found, banner
    return found[1], found[2]


@pytest.fixture
def started(run, settings) -> Iterator[tuple[App, str, str]]:
    server = App(settings)
    run(server.start())
    yield server, *addresses(server.banner())
    run(server.stop())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_answers_what_it_accepted(settings, pictures, monkeypatch, number) -> None:
    banner = Banner()
    monkeypatch.setattr(sys, "stdout", banner)

    def visit() -> tuple[str, Counter[str]]:
        assert banner.ready.wait(PATIENCE_S)
        target, operations = addresses(banner.getvalue())
        with Client(target) as client:
            label = client.classify(pictures["roses"]).predictions[0].label
        assert fetch(f"{operations}/readyz")[0] == 200
        callers = Callers(target, pictures["daisy"])
        os.kill(os.getpid(), number)
        return label, callers.finish()

    with ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(visit)
        app.run(settings)
        label, ends = visitor.result(PATIENCE_S)
    assert label == "roses"
    assert ends.keys() == {"OK", "UNAVAILABLE"}
    assert ends["UNAVAILABLE"] == CALLERS


@pytest.mark.parametrize("turn", range(3))
def test_clients_see_as_many_answers_as_the_server_counts(run, settings, pictures, turn) -> None:
    """Nothing that was accepted is lost on its way out, however the end falls into the load."""
    server = App(settings)
    run(server.start())
    target, _ = addresses(server.banner())
    callers = Callers(target, pictures["daisy"])
    run(server.stop())
    ends = callers.finish()
    counted = {"model": "flowers", "version": "1", "method": "Classify", "code": "OK"}
    assert server._metrics.registry.get_sample_value("anther_requests_total", counted) == ends["OK"]
    assert ends.keys() == {"OK", "UNAVAILABLE"}


def test_it_is_alive_and_ready_with_its_models(started) -> None:
    _, _, operations = started
    assert fetch(f"{operations}/livez") == (200, {"ok": True, "state": "serving"})
    ready = {"ok": True, "state": "serving", "models": {"flowers": 1}, "refused": {}}
    assert fetch(f"{operations}/readyz") == (200, ready)


def test_it_is_alive_and_not_ready_before_its_models_are_loaded(run, settings, eventually) -> None:
    class Slow(Repository):
        reached, release = threading.Event(), threading.Event()

        def open(self, name: str, version: int | None = None) -> Bundle:
            self.reached.set()
            assert self.release.wait(PATIENCE_S)
            return super().open(name, version)

    server = App(settings)
    server._registry.repository = Slow(settings.models)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(run, server.start())
        assert Slow.reached.wait(PATIENCE_S)
        operations = f"http://127.0.0.1:{server._ops.port}"
        assert fetch(f"{operations}/livez") == (200, {"ok": True, "state": "starting"})
        assert fetch(f"{operations}/readyz") == (
            503,
            {"ok": False, "state": "starting", "models": {}, "refused": {}},
        )
        Slow.release.set()
        starting.result(PATIENCE_S)
    assert fetch(f"{operations}/readyz")[0] == 200
    run(server.stop())


def test_it_is_alive_and_not_ready_while_it_drains(started) -> None:
    server, _, operations = started
    server._state = "draining"
    assert fetch(f"{operations}/livez") == (200, {"ok": True, "state": "draining"})
    assert fetch(f"{operations}/readyz")[0] == 503


def test_it_is_dead_when_a_lane_is(started) -> None:
    server, _, operations = started
    server._lanes.close()
    assert fetch(f"{operations}/livez") == (503, {"ok": False, "state": "serving"})


def test_metrics_tell_of_the_loaded_model_and_the_queue(started, pictures) -> None:
    _, target, operations = started
    with Client(target) as client:
        client.classify(pictures["daisy"])
    with urllib.request.urlopen(f"{operations}/metrics", timeout=PATIENCE_S) as answer:
        text = answer.read().decode()
    assert 'anther_model_ready{model="flowers",version="1"} 1.0' in text
    assert 'anther_predictions_total{label="daisy",model="flowers",version="1"} 1.0' in text
    assert "anther_queue_depth 0.0" in text
    assert "anther_inflight_requests 0.0" in text


def test_a_refused_version_is_told_in_health_and_metrics(run, tmp_path, publish_bundle, pictures) -> None:
    publish_bundle(tmp_path)
    publish_bundle(tmp_path, seed=1)
    (tmp_path / "flowers" / "2" / "golden.npz").unlink()
    server = App(Settings(models=tmp_path, grpc_port=0, ops_port=0, lanes=1))
    run(server.start())
    target, operations = addresses(server.banner())
    status, ready = fetch(f"{operations}/readyz")
    assert (status, ready["models"], list(ready["refused"])) == (200, {"flowers": 1}, ["flowers/2"])
    sample = server._metrics.registry.get_sample_value
    assert sample("anther_model_ready", {"model": "flowers", "version": "1"}) == 1
    assert sample("anther_model_ready", {"model": "flowers", "version": "2"}) == 0
    with Client(target) as client:
        assert client.classify(pictures["daisy"]).version == 1
    run(server.stop())


@pytest.mark.parametrize("port", ["grpc_port", "ops_port"])
def test_a_start_that_fails_leaves_nothing_running(run, models, port: str) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"grpc_port": 0, "ops_port": 0, port: taken.getsockname()[1]}
        server = App(Settings(models=models, **ports))
        with pytest.raises(PortUnavailable):
            run(server.start())
        run(server.stop())
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("lane", "oper"))]


def test_no_model_fails_the_start(run, tmp_path) -> None:
    server = App(Settings(models=tmp_path, grpc_port=0, ops_port=0))
    with pytest.raises(NoModelReady):
        run(server.start())
    run(server.stop())


def test_limits_that_cannot_be_fail_before_a_lane_runs(models) -> None:
    """A lane that nobody closes would keep the process from ending."""
    before = threading.active_count()
    with pytest.raises(ValueError, match="max_pixels"):
        App(Settings(models=models, max_image_pixels=10**9))
    assert threading.active_count() == before


# In a process of its own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_ends_the_process_and_loses_no_answer(start_server, pictures, number) -> None:
    server = start_server("--grace-s", "30")
    callers = Callers(server.target, pictures["daisy"])
    assert server.stop(number) == 0
    ends = callers.finish()
    assert ends.keys() == {"OK", "UNAVAILABLE"}
    assert ends["UNAVAILABLE"] == CALLERS
    assert "Traceback" not in server.errors.read_text()
    assert server.errors.read_text().endswith("service.app: stopped\n")


def test_slow_clients_do_not_keep_the_process_from_ending(start_server, pictures) -> None:
    """Silent connections to both ports, half a request, a health watcher: the grace period is not theirs."""
    server = start_server("--grace-s", "600")
    ports = [int(server.target.rpartition(":")[2]), int(server.operations.rpartition(":")[2])]
    enough = threading.Event()

    def trickle() -> Iterator[bytes]:
        enough.wait(PATIENCE_S)
        yield pb.ClassifyRequest(image=pictures["daisy"]).SerializeToString()

    with contextlib.ExitStack() as stack:
        for port in ports * 3:
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET")
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        channel = stack.enter_context(grpc.insecure_channel(server.target))
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        half = channel.stream_unary("/anther.v1.ImageClassifier/Classify").future(trickle())
        ImageClassifierStub(channel).Classify(pb.ClassifyRequest(image=pictures["daisy"]))
        assert server.stop() == 0
        enough.set()
        assert half.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError):
            list(watch)


def test_work_beyond_the_grace_period_is_cancelled(start_server, make_picture) -> None:
    """A queue that would take minutes ends with the grace period, each call with a status."""
    server = start_server("--grace-s", "0.2", "--lanes", "1")
    picture = pb.ClassifyRequest(image=make_picture((255, 0, 0), (4000, 4000)))
    with grpc.insecure_channel(server.target) as channel:
        stub = ImageClassifierStub(channel)
        calls = [stub.Classify.future(picture) for _ in range(50)]
        assert calls[0].result(PATIENCE_S).predictions
        assert server.stop() == 0
        ends = Counter(call.code().name for call in calls)
    assert ends.keys() == {"OK", "UNAVAILABLE"}


def test_the_same_folder_serves_again(start_server, pictures) -> None:
    for _ in range(2):
        server = start_server()
        with Client(server.target) as client:
            assert client.classify(pictures["tulips"]).predictions[0].label == "tulips"
        assert server.stop() == 0


def test_a_corrupt_newest_version_is_passed_over_and_reported(start_server, tmp_path, publish_bundle, pictures) -> None:
    root = tmp_path / "models"
    publish_bundle(root)
    publish_bundle(root, seed=1)
    model = root / "flowers" / "2" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    server = start_server(models=root)
    with Client(server.target) as client:
        answer = client.classify(pictures["daisy"])
    assert (answer.version, answer.predictions[0].label) == (1, "daisy")
    status, ready = fetch(f"{server.operations}/readyz")
    assert (status, ready["models"]) == (200, {"flowers": 1})
    assert "model.onnx: SHA-256" in ready["refused"]["flowers/2"]
    with urllib.request.urlopen(f"{server.operations}/metrics", timeout=PATIENCE_S) as scraped:
        assert b'anther_model_ready{model="flowers",version="2"} 0.0' in scraped.read()
    assert "ERROR   service.registry: refused flowers/2:" in server.errors.read_text()


def test_readiness_comes_after_the_start(start_server, models) -> None:
    """From the first answer of the operations port to the first 200 there is nothing but 503."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [*SERVE, "--models", str(models), "--grpc-port", "0", "--ops-port", str(port)], stdout=subprocess.PIPE
    )
    with process:
        seen = []
        while process.poll() is None and seen[-1:] != [200]:
            try:
                seen.append(fetch(f"http://127.0.0.1:{port}/readyz")[0])
            except urllib.error.URLError:
                seen.append(0)
        process.terminate()
    assert seen == sorted(seen, key=[0, 503, 200].index)
    assert seen[-1] == 200


def failed_start(*options: str, timeout_s: float = PATIENCE_S) -> tuple[int, str, list[str]]:
    done = subprocess.run([*SERVE, *options], capture_output=True, text=True, check=False, timeout=timeout_s)
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    return done.returncode, done.stdout, lines


@pytest.mark.parametrize("option", ["--grpc-port", "--ops-port"])
def test_a_port_in_use_is_one_line_and_exit_code_1(models, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--grpc-port": "0", "--ops-port": "0", option: str(port)}
        flags = [part for pair in ports.items() for part in pair]
        code, out, lines = failed_start("--models", str(models), *flags)
    assert (code, out) == (1, "")
    (line,) = lines
    assert line.startswith(f"anther: cannot listen on 127.0.0.1:{port} (Address already in use); ")
    assert f"choose another port with {option}" in line


def test_two_servers_never_share_a_port(start_server, models) -> None:
    """SO_REUSEPORT would let the second one take half of the first one's requests."""
    port = start_server().target.rpartition(":")[2]
    code, _, lines = failed_start("--models", str(models), "--grpc-port", port, "--ops-port", "0")
    assert code == 1
    assert "--grpc-port" in lines[0]


def test_a_folder_without_models_is_one_line_and_exit_code_1(tmp_path) -> None:
    code, _, lines = failed_start("--models", str(tmp_path), "--grpc-port", "0", "--ops-port", "0")
    assert code == 1
    (line,) = lines
    assert line.startswith(f"anther: no model in {tmp_path} can serve (there is none); train one with")


def test_a_bad_limit_is_wrong_usage_and_does_not_hang(models) -> None:
    code, _, lines = failed_start("--models", str(models), "--max-image-pixels", "200000000")
    assert code == 2
    assert "--max-image-pixels" in lines[-1]
