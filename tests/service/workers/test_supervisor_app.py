"""Several processes on one port, as users start and stop them, and as they die."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from service.config import Settings
from service.workers import supervisor_app

PATIENCE_S = 60
SERVE = [sys.executable, "-m", "anther", "serve"]
BANNER = re.compile(r"gRPC (\S+), operations (http://\S+),")


@pytest.fixture
def pair(start_server):
    """`pair("--grace-s", "30")` is a server of two workers."""
    return lambda *options, **more: start_server("--workers", "2", *options, **more)


def pids(fetch, server: Any) -> list[int]:
    return workers_of(fetch, server.operations)


def workers_of(fetch, operations: str) -> list[int]:
    return [worker["process"] for worker in fetch(f"{operations}/readyz")[1]["workers"].values()]


def total(operations: str, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    with urllib.request.urlopen(f"{operations}/metrics", timeout=PATIENCE_S) as scraped:
        text = scraped.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextlib.contextmanager
def connected(target: str, count: int) -> Iterator[list[ImageClassifierStub]]:
    """Over as many connections, which the system spreads over the workers."""
    with contextlib.ExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(target, options=options)) for _ in range(count)]
        yield [ImageClassifierStub(channel) for channel in channels]


def classify(stub: ImageClassifierStub, picture: bytes) -> str:
    response = stub.Classify(pb.ClassifyRequest(image=picture), timeout=PATIENCE_S, wait_for_ready=True)
    return str(response.predictions[0].label)


def classify_over_http(address: str, count: int, picture: bytes, pids: Callable[[], list[int]]) -> None:
    """Over as many connections, of which each of the processes has some."""
    port = int(address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            stack.enter_context(contextlib.closing(connection))
            connection.request("POST", "/v1/classify", picture)
            assert json.loads(connection.getresponse().read())["predictions"][0]["label"] == "roses"
        for pid in pids():
            connections = psutil.Process(pid).net_connections("tcp")
            assert any(each.laddr[1] == port and each.status == psutil.CONN_ESTABLISHED for each in connections)


def gone(pid: int) -> bool:
    """Nothing runs under that id; what has ended may still wait for its new parent to notice."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Serving


def test_both_workers_answer_and_one_operations_port_speaks_for_both(pair, pictures, fetch) -> None:
    server = pair("--http-port", "0")
    with connected(server.target, 32) as stubs:
        for stub in stubs:
            assert classify(stub, pictures["roses"]) == "roses"
        port = int(server.target.rpartition(":")[2])
        for pid in pids(fetch, server):
            connections = psutil.Process(pid).net_connections("tcp")
            assert any(each.laddr[1] == port and each.status == psutil.CONN_ESTABLISHED for each in connections)
    classify_over_http(server.http, 32, pictures["roses"], lambda: pids(fetch, server))
    for protocol in ("grpc", "http"):
        assert total(server.operations, "anther_requests_total", code="OK", protocol=protocol) == 32
    assert total(server.operations, "anther_predictions_total", label="roses") == 64
    assert total(server.operations, "anther_request_duration_seconds_count") == 64
    assert total(server.operations, "anther_model_ready") == 1
    status, ready = fetch(f"{server.operations}/readyz")
    assert (status, ready["state"], ready["models"], ready["refused"]) == (200, "serving", {"flowers": 1}, {})
    assert {worker["state"] for worker in ready["workers"].values()} == {"serving"}
    status, live = fetch(f"{server.operations}/livez")
    assert (status, live["ok"], list(live["workers"])) == (200, True, ["0", "1"])
    assert server.stop() == 0


def test_a_killed_worker_is_replaced_and_counted_and_no_number_goes_back(pair, pictures, fetch, eventually) -> None:
    server = pair()
    first, second = pids(fetch, server)
    with connected(server.target, 16) as stubs:
        for stub in stubs:
            classify(stub, pictures["daisy"])
    assert total(server.operations, "anther_requests_total", code="OK") == 16
    os.kill(first, signal.SIGKILL)
    eventually(lambda: total(server.operations, "anther_worker_restarts_total") == 1)
    assert total(server.operations, "anther_requests_total", code="OK") == 16
    assert fetch(f"{server.operations}/readyz")[0] == 200
    eventually(lambda: all(w["ok"] for w in fetch(f"{server.operations}/readyz")[1]["workers"].values()))
    replacement, survivor = pids(fetch, server)
    assert (replacement != first, survivor) == (True, second)
    with connected(server.target, 16) as stubs:
        for stub in stubs:
            classify(stub, pictures["daisy"])
    assert total(server.operations, "anther_requests_total", code="OK") == 32
    assert total(server.operations, "anther_model_ready") == 1
    assert server.stop() == 0
    assert f"worker 0 (process {first}) was killed by SIGKILL; replaced in" in server.errors.read_text()


def test_callers_that_retry_see_nothing_of_a_workers_death(pair, pictures, fetch, eventually) -> None:
    server = pair()
    enough, counts = threading.Event(), [0] * 8
    errors: list[str] = []

    def ask(index: int) -> None:
        with connected(server.target, 1) as (stub,):
            while not enough.is_set():
                try:
                    assert classify(stub, pictures["tulips"]) == "tulips"
                    counts[index] += 1
                except grpc.RpcError as error:
                    errors.append(error.code().name)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(counts))]
    for thread in threads:
        thread.start()
    eventually(lambda: min(counts) > 3)
    os.kill(pids(fetch, server)[1], signal.SIGKILL)
    eventually(lambda: total(server.operations, "anther_worker_restarts_total") == 1)
    eventually(lambda: all(w["ok"] for w in fetch(f"{server.operations}/readyz")[1]["workers"].values()))
    before = list(counts)
    eventually(lambda: all(now > then for now, then in zip(counts, before, strict=True)))
    enough.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert set(errors) <= {"UNAVAILABLE"}
    assert len(errors) <= 2 * len(counts), "one that was in flight, and one before the channel stands again"


# Following


@pytest.fixture
def apart(pair, tmp_path, publish_bundle) -> tuple[Any, Path]:
    """A server of two workers that rescan the folder only when they are told to, and the folder."""
    root = tmp_path / "models"
    publish_bundle(root)
    return pair("--watch-s", "0", "--control", models=root), root


def models_of_each(fetch, server: Any) -> list[dict[str, int]]:
    return [worker["models"] for worker in fetch(f"{server.operations}/readyz")[1]["workers"].values()]


def test_at_sighup_all_workers_rescan_the_folder(apart, publish_bundle, fetch, eventually) -> None:
    server, root = apart
    publish_bundle(root)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: models_of_each(fetch, server) == [{"flowers": 2}, {"flowers": 2}])
    publish_bundle(root)
    os.kill(pids(fetch, server)[1], signal.SIGHUP)
    eventually(lambda: models_of_each(fetch, server) == [{"flowers": 2}, {"flowers": 3}])
    assert server.stop() == 0
    assert "replaced" not in server.errors.read_text()


def test_what_a_client_has_one_worker_load_all_workers_load(apart, publish_bundle, fetch, eventually) -> None:
    server, root = apart
    with grpc.insecure_channel(server.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="flowers"), timeout=PATIENCE_S)
        eventually(lambda: models_of_each(fetch, server) == [{}, {}])
        publish_bundle(root)
        stub.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="flowers"), timeout=PATIENCE_S)
        eventually(lambda: models_of_each(fetch, server) == [{"flowers": 2}, {"flowers": 2}])


# Hanging


IMPATIENT = (
    "from anther import cli; from service.workers import supervisor; "
    "supervisor._TICK_S, supervisor._SILENT_TICKS = 0.25, 16; cli.main()"
)
SILENT_S = 4


@pytest.fixture
def impatient_pair(models, tmp_path) -> Iterator[tuple[Any, str, str, Path]]:
    """The process of a server of two workers that kills who says nothing for `SILENT_S`, its addresses and its log."""
    errors = tmp_path / "stderr.txt"
    options = ["--workers", "2", "--models", str(models), "--grpc-port", "0", "--ops-port", "0"]
    command = [sys.executable, "-c", IMPATIENT, "serve", *options]
    with (
        errors.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        assert process.stdout is not None
        found = BANNER.search(process.stdout.readline())
        assert found, errors.read_text()
        yield process, found[1], found[2], errors
        process.kill()


def test_a_stopped_worker_is_replaced(impatient_pair, pictures, fetch, eventually) -> None:
    """It answers nobody, but the kernel goes on to give it connections."""
    process, target, operations, errors = impatient_pair
    stopped = workers_of(fetch, operations)[0]
    os.kill(stopped, signal.SIGSTOP)
    eventually(lambda: total(operations, "anther_worker_restarts_total") >= 1)
    eventually(lambda: all(w["ok"] for w in fetch(f"{operations}/readyz")[1]["workers"].values()))
    assert gone(stopped)
    assert stopped not in workers_of(fetch, operations)
    with connected(target, 16) as stubs:
        assert {classify(stub, pictures["daisy"]) for stub in stubs} == {"daisy"}
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert f"worker 0 (process {stopped}) is silent for {SILENT_S} s; killed" in errors.read_text()


def test_a_supervisor_that_was_stopped_for_long_kills_nobody(impatient_pair, pictures, fetch) -> None:
    """As by Ctrl-Z or a debugger: it heard nothing because it did not listen, and its workers went on."""
    process, target, operations, errors = impatient_pair
    processes = workers_of(fetch, operations)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5 * SILENT_S)
    with connected(target, 16) as stubs:
        assert {classify(stub, pictures["roses"]) for stub in stubs} == {"roses"}
    process.send_signal(signal.SIGCONT)
    time.sleep(SILENT_S / 2)
    assert workers_of(fetch, operations) == processes
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert "killed" not in errors.read_text()


# Stopping


class Asking:
    """Clients that ask without pause, each over its own connection, until a call is not answered; and how calls ended.

    An answer ends a call as OK and its label; a failure as the code and the server's reason, or the transport's words
    where it was not the server that refused: an answer that got lost on its way has those.
    """

    CLIENTS, ANSWERS = 6, 5

    def __init__(self, target: str, picture: bytes) -> None:
        """Returns when there have been so many answers for each client."""
        self._ends: list[tuple[str, str]] = []
        self._target, self._picture = target, picture
        self._ended = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.CLIENTS)]
        for thread in self._threads:
            thread.start()
        for _ in range(self.ANSWERS * self.CLIENTS):
            assert self._ended.acquire(timeout=PATIENCE_S)

    def finish(self) -> Counter[tuple[str, str]]:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        return Counter(self._ends)

    def _ask(self) -> None:
        with connected(self._target, 1) as (stub,):
            while self._end_of_a_call(stub)[0] == "OK":
                pass

    def _end_of_a_call(self, stub: ImageClassifierStub) -> tuple[str, str]:
        try:
            end = "OK", classify(stub, self._picture)
        except grpc.RpcError as error:
            end = error.code().name, reason_of(error)
        self._ends.append(end)
        self._ended.release()
        return end


def reason_of(error: Any) -> str:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return "DRAINING" if b"DRAINING" in details else str(error.details())


def to_the_supervisor(server: Any, workers: list[int]) -> None:
    server.process.send_signal(signal.SIGTERM)


def to_all_of_them(server: Any, workers: list[int]) -> None:
    """As service managers do, and Ctrl-C with all that is in the terminal's group."""
    server.process.send_signal(signal.SIGINT)
    for worker in workers:
        os.kill(worker, signal.SIGINT)


@pytest.mark.parametrize("send", [to_the_supervisor, to_all_of_them])
def test_a_signal_under_load_loses_no_answer(pair, pictures, fetch, send) -> None:
    """Each call is answered right, or refused by the worker that drains; none ends with its connection."""
    server = pair("--grace-s", "30")
    processes = pids(fetch, server)
    asking = Asking(server.target, pictures["daisy"])
    send(server, processes)
    assert server.process.wait(PATIENCE_S) == 0
    ends = asking.finish()
    assert ends.keys() == {("OK", "daisy"), ("UNAVAILABLE", "DRAINING")}
    assert ends["UNAVAILABLE", "DRAINING"] == asking.CLIENTS
    log = server.errors.read_text()
    assert "Traceback" not in log
    assert "replaced" not in log
    assert log.endswith("service.workers.supervisor_app: stopped\n")
    assert all(gone(pid) for pid in processes)


def test_workers_end_with_a_supervisor_that_was_killed(pair, fetch, pictures, eventually) -> None:
    """Nobody else would end them, or give back the port and the memory of the metrics."""
    server = pair()
    processes = pids(fetch, server)
    maps = [Path(found.path) for pid in processes for found in psutil.Process(pid).memory_maps()]
    folders = {path.parent for path in maps if path.suffix == ".db"}
    assert [folder.is_dir() for folder in folders] == [True]
    server.process.kill()
    eventually(lambda: all(gone(pid) for pid in processes))
    assert not any(folder.exists() for folder in folders)
    assert "Traceback" not in server.errors.read_text()


# Starting


def failed_start(*options: str) -> tuple[int, str, list[str]]:
    command = [*SERVE, "--ops-port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if " INFO " not in line]


def test_workers_that_cannot_start_are_one_line_and_exit_code_1(tmp_path) -> None:
    code, out, (line,) = failed_start("--models", str(tmp_path), "--grpc-port", "0", "--workers", "2")
    assert (code, out) == (1, "")
    assert line.startswith(f"anther: no model in {tmp_path} can serve (there is none); train one with")


@pytest.mark.parametrize(("first", "others"), [("1", ["2"]), ("2", ["1", "2"])])
def test_a_port_that_another_server_has_is_refused(start_server, models, first: str, others: list[str]) -> None:
    """SO_REUSEPORT would let the second one take half of the first one's requests."""
    port = start_server("--workers", first).target.rpartition(":")[2]
    for count in others:
        code, _, (line,) = failed_start("--models", str(models), "--grpc-port", port, "--workers", count)
        assert code == 1
        assert line.startswith(f"anther: cannot listen on 127.0.0.1:{port} (Address already in use); ")
        assert "--grpc-port" in line


def test_the_operations_port_is_refused_when_taken(models) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, (line,) = failed_start(
            "--models", str(models), "--grpc-port", "0", "--ops-port", str(port), "--workers", "2"
        )
    assert code == 1
    assert line.startswith(f"anther: cannot listen on 127.0.0.1:{port} (Address already in use); ")


def test_a_folder_named_service_where_it_starts_is_none_of_its_business(tmp_path) -> None:
    """Neither the command nor its workers look for our modules in the current folder."""
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    script = "from anther.cli import main; main()"
    options = ["--workers", "2", "--models", str(tmp_path), "--grpc-port", "0", "--ops-port", "0"]
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", *options],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE_S,
    )  # fmt: skip
    assert "anther: no model in" in done.stderr
    assert "the wrong one" not in done.stderr


# The whole composition, in this process


def test_it_serves_with_workers_until_a_signal(models, pictures, fetch, monkeypatch, eventually) -> None:
    settings = Settings(models=models, http_port=None, grpc_port=0, ops_port=0, workers=2, grace_s=PATIENCE_S)
    out = io.StringIO()  # pytest's own capture loses what is printed while another thread reads it
    monkeypatch.setattr(sys, "stdout", out)
    told = re.compile(
        r"Anther is ready: gRPC (\S+), operations (http://\S+), flowers/1 on CPUExecutionProvider, 2 workers\n"
    )

    def visit() -> tuple[str, int]:
        try:
            eventually(lambda: told.fullmatch(out.getvalue()) is not None)
            target, operations = told.fullmatch(out.getvalue()).groups()
            with connected(target, 1) as (stub,):
                label = classify(stub, pictures["daisy"])
            status, ready = fetch(f"{operations}/readyz")
            os.kill(ready["workers"]["1"]["process"], signal.SIGKILL)
            eventually(lambda: total(operations, "anther_worker_restarts_total") == 1)
            return label, status
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(visit)
        supervisor_app.run(settings)
        assert visitor.result(PATIENCE_S) == ("daisy", 200)


@pytest.mark.parametrize(
    ("workers", "lanes", "cores", "expected"),
    [(2, 0, 2, 1), (2, 0, 8, 4), (2, 0, 3, 2), (4, 0, 2, 1), (2, 8, 2, 4), (2, 1, 8, 1)],
)
def test_lanes_are_divided_among_the_workers(workers: int, lanes: int, cores: int, expected: int) -> None:
    assert supervisor_app.share(Settings(workers=workers, lanes=lanes), cores).lanes == expected


def test_the_queue_is_divided_and_the_ports_are_common() -> None:
    each = supervisor_app.share(Settings(workers=3, queue_limit=128, queue_bytes=300, http_connections=10), 4)
    assert (each.http_port, each.grpc_port) == (8000, 8001)
    assert (each.queue_limit, each.queue_bytes, each.http_connections, each.workers) == (43, 100, 4, 3)
