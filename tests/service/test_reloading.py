"""The whole server while its folder changes: new versions, bad ones, trials, and nobody who asks gets an error."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from anther import Client
from bundle.policy import ServingPolicy, edit_policy
from service.app import App
from service.config import Settings
from service.versions.routes import falls_into

PATIENCE_S = 60


class Running:
    """A server on a folder of its own, and what can be asked of it."""

    def __init__(self, run: Callable[[Any], Any], root: Path) -> None:
        settings = Settings(
            models=root, watch_s=0.02, http_port=None, grpc_port=0, ops_port=0, lanes=2, grace_s=PATIENCE_S
        )
        self.root = root
        self.app = App(settings)
        self._run = run
        run(self.app.start())
        self.target = f"127.0.0.1:{self.app._rpc.port}"

    def stop(self) -> None:
        self._run(self.app.stop())

    def page(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.app._ops.port}/readyz", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.app._metrics.registry.get_sample_value(name, labels)

    def healthy(self, model: str) -> int:
        with grpc.insecure_channel(self.target) as channel:
            request = health_pb2.HealthCheckRequest(service=f"model:{model}")
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE_S).status

    def edit(self, change: Callable[[ServingPolicy], ServingPolicy]) -> None:
        edit_policy(self.root, "flowers", change)


@pytest.fixture
def server(run, tmp_path: Path, publish_bundle) -> Iterator[Running]:
    publish_bundle(tmp_path, seed=1)
    running = Running(run, tmp_path)
    yield running
    running.stop()


def test_new_versions_take_over_under_load_and_no_call_fails(
    server: Running, publish_bundle, pictures, callers, eventually
) -> None:
    asking = callers(server.target, pictures["daisy"])
    for version in (2, 3, 4):
        publish_bundle(server.root, seed=version)
        eventually(lambda version=version: server.page()["models"] == {"flowers": version})
        before = asking.ends["OK"]
        eventually(lambda before=before: asking.ends["OK"] > before + 20)
    server.stop()
    ends = asking.finish()
    assert ends.keys() == {"OK", "UNAVAILABLE"}, "UNAVAILABLE is how each caller learns that the server has gone"
    assert ends["UNAVAILABLE"] == callers.COUNT
    called = {"model": "flowers", "protocol": "grpc", "method": "Classify", "code": "OK"}
    answered = [server.metric("anther_requests_total", version=str(version), **called) for version in (1, 2, 3, 4)]
    assert all(answered)
    assert sum(answered) == ends["OK"]


def test_a_bad_new_version_keeps_the_old_one_and_says_why_everywhere(server: Running, pictures, eventually) -> None:
    folder = server.root / "flowers" / "2"
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    eventually(lambda: "flowers/2" in server.page()["refused"])
    assert server.page()["models"] == {"flowers": 1}
    assert server.page()["ok"]
    assert server.metric("anther_model_ready", model="flowers", version="2") == 0
    assert server.metric("anther_model_ready", model="flowers", version="1") == 1
    assert server.metric("anther_model_refused", model="flowers", version="2", reason="MANIFEST_INVALID") == 1
    assert server.metric("anther_model_loads_total", model="flowers", outcome="refused") == 1
    with Client(server.target) as client:
        assert client.classify(pictures["daisy"]).version == 1
    (folder / "manifest.json").unlink()
    folder.rmdir()
    eventually(lambda: server.page()["refused"] == {})
    assert server.metric("anther_model_ready", model="flowers", version="2") is None


def test_a_damaged_policy_is_on_the_readiness_page(server: Running, eventually) -> None:
    (server.root / "flowers" / "serving.json").write_text("{")
    eventually(lambda: "flowers" in server.page().get("policy_errors", {}))
    assert server.page()["ok"]
    (server.root / "flowers" / "serving.json").unlink()
    eventually(lambda: "policy_errors" not in server.page())


def test_a_switch_is_in_the_metrics(server: Running, publish_bundle, eventually) -> None:
    publish_bundle(server.root, seed=2)
    eventually(lambda: server.page()["models"] == {"flowers": 2})
    eventually(lambda: server.metric("anther_model_ready", model="flowers", version="1") is None)
    eventually(lambda: server.metric("anther_model_ready", model="flowers", version="2") == 1)
    eventually(lambda: server.metric("anther_model_loads_total", model="flowers", outcome="loaded") == 2)


def test_health_follows_each_model(server: Running, publish_bundle, eventually) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.healthy("flowers") == serving
    publish_bundle(server.root, "trees")
    eventually(lambda: "trees" in server.page()["models"])
    eventually(lambda: server.healthy("trees") == serving)
    server.edit(ServingPolicy.unloaded)
    eventually(lambda: server.healthy("flowers") == not_serving)
    server.edit(ServingPolicy.reloaded)
    eventually(lambda: server.healthy("flowers") == serving)


def test_a_canary_gets_exactly_the_ids_of_its_share(server: Running, publish_bundle, pictures, eventually) -> None:
    """Through the registry that the classifier asks; the share itself is `test_routes`' matter."""
    server.edit(lambda policy: policy.pinned_to(1, 1))
    publish_bundle(server.root, seed=2)
    server.edit(lambda policy: policy.with_canary(2, 0.3))
    eventually(lambda: len(server.app._registry.live()) == 2)
    ids = [f"id-{number}" for number in range(500)]
    found = {name for name in ids if server.app._registry.find("flowers", request_id=name).version == 2}
    assert found == {name for name in ids if falls_into(0.3, "canary", name)}
    with Client(server.target) as client:
        assert client.classify(pictures["daisy"], version=2).version == 2


def test_a_shadow_is_measured_and_answers_nobody(
    server: Running, publish_bundle, pictures, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process runs as others do here: on a busy machine an idle one may not come to its turn."""
    monkeypatch.setattr(server.app._shadow._computer, "_step_back", lambda process: None)
    server.edit(lambda policy: policy.pinned_to(1, 1))
    publish_bundle(server.root, seed=2)
    server.edit(lambda policy: policy.with_shadow(2, 1.0))
    eventually(lambda: len(server.app._registry.routes()["flowers"].models()) == 2)
    with Client(server.target) as client:
        assert {client.classify(pictures["daisy"]).version for _ in range(5)} == {1}
    where = {"model": "flowers", "version": "2"}
    eventually(lambda: server.metric("anther_shadow_total", **where, outcome="agree") == 5)
    eventually(lambda: server.metric("anther_shadow_probability_difference_count", **where) == 5)
    assert server.metric("anther_shadow_probability_difference_sum", **where) > 0
