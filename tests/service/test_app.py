"""The whole server in this process: start, readiness, and an end that loses nothing that it accepted."""

import io
import os
import re
import signal
import socket
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from anther import Client
from bundle.repository import Bundle, Repository
from service import app
from service.app import App
from service.config import Settings
from service.errors import NoModelReady, PortUnavailable
from service.versions.reconcile import Change

PATIENCE_S = 60


class Banner(io.StringIO):
    """Standard output that tells when the server says that it is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def flush(self) -> None:
        self.ready.set()


@pytest.fixture
def settings(models: Path) -> Settings:
    return Settings(models=models, http_port=0, grpc_port=0, ops_port=0, lanes=2, grace_s=PATIENCE_S)


def addresses(banner: str) -> tuple[str, str]:
    """gRPC target and operations URL from the line that a started server prints."""
    found = re.fullmatch(
        r"Anther is ready: (?:HTTP http://\S+, )?gRPC (\S+), operations (http://\S+), flowers/1 on CPUExecution"
        r"Provider\n?",
        banner,
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
def test_it_serves_until_a_signal_and_answers_what_it_accepted(
    settings, pictures, monkeypatch, number, callers, fetch
) -> None:
    banner = Banner()
    monkeypatch.setattr(sys, "stdout", banner)

    def visit() -> tuple[str, Counter[str]]:
        assert banner.ready.wait(PATIENCE_S)
        target, operations = addresses(banner.getvalue())
        with Client(target) as client:
            label = client.classify(pictures["roses"]).predictions[0].label
        assert fetch(f"{operations}/readyz")[0] == 200
        asking = callers(target, pictures["daisy"])
        os.kill(os.getpid(), number)
        return label, asking.finish()

    with ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(visit)
        app.run(settings)
        label, ends = visitor.result(PATIENCE_S)
    assert label == "roses"
    assert ends.keys() == {"OK", "UNAVAILABLE"}
    assert ends["UNAVAILABLE"] == callers.COUNT


@pytest.mark.parametrize("turn", range(3))
def test_clients_see_as_many_answers_as_the_server_counts(run, settings, pictures, turn, callers) -> None:
    """Nothing that was accepted is lost on its way out, however the end falls into the load."""
    server = App(settings)
    run(server.start())
    target, _ = addresses(server.banner())
    asking = callers(target, pictures["daisy"])
    run(server.stop())
    ends = asking.finish()
    counted = {"model": "flowers", "version": "1", "protocol": "grpc", "method": "Classify", "code": "OK"}
    assert server._metrics.registry.get_sample_value("anther_requests_total", counted) == ends["OK"]
    assert ends.keys() == {"OK", "UNAVAILABLE"}


def test_it_is_alive_and_ready_with_its_models(started, fetch) -> None:
    _, _, operations = started
    assert fetch(f"{operations}/livez") == (200, {"ok": True, "state": "serving"})
    ready = {"ok": True, "state": "serving", "models": {"flowers": 1}, "refused": {}}
    assert fetch(f"{operations}/readyz") == (200, ready)


def test_it_is_alive_and_not_ready_before_its_models_are_loaded(run, settings, eventually, fetch) -> None:
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


def test_it_is_alive_and_not_ready_while_it_drains(started, fetch) -> None:
    server, _, operations = started
    server._state = "draining"
    assert fetch(f"{operations}/livez") == (200, {"ok": True, "state": "draining"})
    assert fetch(f"{operations}/readyz")[0] == 503


def test_it_is_dead_when_a_lane_is(started, fetch) -> None:
    server, _, operations = started
    server._scheduler.close()
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


@pytest.fixture
def own(run, tmp_path, publish_bundle) -> Iterator[tuple[App, Path]]:
    """A server that rescans its folder only when it is told to, and that folder."""
    root = tmp_path / "models"
    publish_bundle(root)
    server = App(Settings(models=root, http_port=None, grpc_port=0, ops_port=0, lanes=1, watch_s=0))
    run(server.start())
    yield server, root
    run(server.stop())


def test_told_to_rescan_it_takes_over_what_has_come(own, publish_bundle, fetch, eventually) -> None:
    server, root = own
    publish_bundle(root)
    server.rescan()
    eventually(lambda: server._readiness()["models"] == {"flowers": 2})


def test_told_to_rescan_before_it_watches_it_does_so_then(run, tmp_path, publish_bundle, eventually) -> None:
    """The models have been read by then, and what came meanwhile must not be missed."""
    publish_bundle(tmp_path)

    class Told(App):
        def _changed(self, change: Change) -> None:
            super()._changed(change)
            if change.loaded and change.loaded[0].version == 1:
                publish_bundle(tmp_path)
                self.rescan()

    server = Told(Settings(models=tmp_path, http_port=None, grpc_port=0, ops_port=0, lanes=1, watch_s=0))
    run(server.start())
    eventually(lambda: server._readiness()["models"] == {"flowers": 2})
    run(server.stop())


def test_a_rescan_that_fails_is_logged_and_the_models_stay(own, eventually, caplog: pytest.LogCaptureFixture) -> None:
    server, root = own
    told = "the models cannot be rescanned, so they stay as they are: [Errno 2] No such file or directory"
    root.rename(root.with_name("gone"))
    for times in (1, 2):
        server.rescan()
        eventually(lambda count=times: sum(line.startswith(told) for line in caplog.messages) == count)
    assert server._readiness()["models"] == {"flowers": 1}


def test_rescans_that_wait_are_one(own, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's impatience must not become hours of work."""
    server, _ = own
    entered, release, rescans = threading.Semaphore(0), threading.Event(), []

    def refresh(again: bool = False, pause: Any = None) -> bool:
        rescans.append(again)
        entered.release()
        assert release.wait(PATIENCE_S)
        return False

    monkeypatch.setattr(server._registry, "refresh", refresh)
    server.rescan()
    assert entered.acquire(timeout=PATIENCE_S)
    for _ in range(10):
        server.rescan()
    release.set()
    server._watcher.reconcile().result(PATIENCE_S)
    assert rescans == [True, True, True], "the first, the ten others, and the last"


def test_while_it_drains_it_does_not_rescan(own, run, publish_bundle) -> None:
    """A new version would delay the end."""
    server, root = own
    publish_bundle(root)
    server._state = "draining"
    server.rescan()
    server._watcher.close()
    assert server._readiness()["models"] == {"flowers": 1}


def test_a_refused_version_is_told_in_health_and_metrics(run, tmp_path, publish_bundle, pictures, fetch) -> None:
    publish_bundle(tmp_path)
    publish_bundle(tmp_path, seed=1)
    (tmp_path / "flowers" / "2" / "golden.npz").unlink()
    server = App(Settings(models=tmp_path, http_port=None, grpc_port=0, ops_port=0, lanes=1))
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


@pytest.mark.parametrize("port", ["http_port", "grpc_port", "ops_port"])
def test_a_start_that_fails_leaves_nothing_running(run, models, port: str) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"http_port": 0, "grpc_port": 0, "ops_port": 0, port: taken.getsockname()[1]}
        server = App(Settings(models=models, **ports))
        with pytest.raises(PortUnavailable):
            run(server.start())
        run(server.stop())
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("lane", "oper"))]


def test_no_model_fails_the_start(run, tmp_path) -> None:
    server = App(Settings(models=tmp_path, http_port=None, grpc_port=0, ops_port=0))
    with pytest.raises(NoModelReady):
        run(server.start())
    run(server.stop())


def test_limits_that_cannot_be_fail_before_a_lane_runs(models) -> None:
    """A lane that nobody closes would keep the process from ending."""
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="max_pixels"):
        App(Settings(models=models, max_image_pixels=10**9))
    assert not set(threading.enumerate()) - before
