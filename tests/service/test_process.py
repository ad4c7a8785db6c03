"""`anther serve` as users start and stop it: a process of its own, real ports, real signals."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther import Client
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from bundle.policy import edit_policy

PATIENCE_S = 60
SERVE = [sys.executable, "-m", "anther", "serve"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_ends_the_process_and_loses_no_answer(start_server, pictures, number, callers) -> None:
    server = start_server("--grace-s", "30")
    asking = callers(server.target, pictures["daisy"])
    assert server.stop(number) == 0
    ends = asking.finish()
    assert ends.keys() == {"OK", "UNAVAILABLE"}
    assert ends["UNAVAILABLE"] == callers.COUNT
    assert "Traceback" not in server.errors.read_text()
    assert server.errors.read_text().endswith("service.app: stopped\n")


# SIGHUP


@pytest.fixture
def deadly() -> Iterator[None]:
    """For processes that are started now; a process that had it ignored would hand that on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_at_sighup_it_rescans_the_folder(
    deadly, start_server, tmp_path, publish_bundle, pictures, fetch, eventually
) -> None:
    """How `anther models` reaches a server that does not rescan by itself."""
    root = tmp_path / "models"
    publish_bundle(root)
    publish_bundle(root)
    server = start_server("--watch-s", "0", models=root)
    edit_policy(root, "flowers", lambda policy: policy.pinned_to(1, current=2))
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: fetch(f"{server.operations}/readyz")[1]["models"] == {"flowers": 1})
    root.rename(tmp_path / "gone")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "ERROR   service.versions.watcher: the models cannot be rescanned" in server.errors.read_text())
    with Client(server.target) as client:
        assert client.classify(pictures["daisy"]).version == 1
    assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_does_not_end_it_before_it_can_heed_it(deadly, models, workers: str) -> None:
    code = (
        "import os, signal; from anther import cli; from service import app; "
        "from service.workers import supervisor_app; "
        "app.run = supervisor_app.run = lambda settings: os.kill(os.getpid(), signal.SIGHUP); cli.main()"
    )
    options = ["serve", "--models", str(models), "--workers", workers]
    assert subprocess.run([sys.executable, "-c", code, *options], check=False, timeout=PATIENCE_S).returncode == 0


def heeds_or_holds(pid: int) -> bool:
    """Whether SIGHUP would not end that process, as the kernel has it."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return any(int(fields[name], 16) >> (signal.SIGHUP - 1) & 1 for name in ("SigBlk", "SigIgn", "SigCgt"))


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_ends_it_neither_at_its_start_nor_at_its_end(deadly, models, workers: int, eventually) -> None:
    ports = ["--grpc-port", "0", "--ops-port", "0"]
    command = [*SERVE, "--models", str(models), "--workers", str(workers), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        eventually(lambda: heeds_or_holds(process.pid))
        flooding = threading.Thread(target=flood, args=(process,))
        flooding.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
        flooding.join()
    assert ready.startswith("Anther is ready")
    assert (process.returncode, "replaced" in errors, "Traceback" in errors) == (0, False, False)


def flood(process: "subprocess.Popen[str]") -> None:
    """SIGHUP again and again to the process and to those that it starts, until it has ended."""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children()]:
                each.send_signal(signal.SIGHUP)
        time.sleep(0.001)


# Its end


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


def test_a_corrupt_newest_version_is_passed_over_and_reported(
    start_server, tmp_path, publish_bundle, pictures, fetch
) -> None:
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
    assert "ERROR   service.versions.reconcile: refused flowers/2:" in server.errors.read_text()


def test_readiness_comes_after_the_start(start_server, models, fetch) -> None:
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
