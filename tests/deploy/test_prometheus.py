"""Prometheus with the committed configuration: the tools accept it, its names exist, and it watches a real server."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from anther import CallFailed, Client
from bundle.repository import Repository
from service.metrics import Metrics
from tests.authority import Authority

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="prometheus and promtool are not installed"
)
_SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
_OF_A_PROCESS = {"process_start_time_seconds"}  # from the client library, where there is a /proc
_SELECTOR = re.compile(r"((?:anther|process|python)_\w+)(?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    grpc_port: int
    ops_port: int
    authority: Path


@pytest.fixture(scope="module")
def expressions(root: Path) -> list[str]:
    groups = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@needs_prometheus
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "deploy/prometheus/prometheus.yml"),
        ("check", "rules", "deploy/prometheus/alerts.yml"),
        ("test", "rules", "tests/deploy/alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts(root, arguments):
    done = subprocess.run(["promtool", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test_that_fires_it(root):
    groups = yaml.safe_load((root / "deploy/prometheus/alerts.yml").read_text())["groups"]
    tests = yaml.safe_load((root / "tests/deploy/alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for group in groups for rule in group["rules"]}


def test_every_metric_of_the_rules_and_their_tests_exists(root, expressions):
    """A rule on a misspelt metric is silent for ever."""
    series = yaml.safe_load((root / "tests/deploy/alerts_test.yml").read_text())["tests"]
    named = expressions + [entry["series"] for test in series for entry in test["input_series"]]
    used = {metric for text in named for metric, _ in _SELECTOR.findall(text)}
    assert used
    assert used <= _metric_names() | _OF_A_PROCESS


def test_every_status_code_of_the_rules_exists(expressions):
    codes = {
        code for text in expressions for found in re.findall(r'code=~"([A-Z_|]+)"', text) for code in found.split("|")
    }
    assert codes
    assert codes <= set(grpc.StatusCode.__members__)


@needs_prometheus
def test_prometheus_watches_a_real_server(root, tmp_path, publish_bundle, make_picture, expressions):
    """Counts, model and state as they are; every rule evaluates, and on labels that exist; a dead server is noticed."""
    models = tmp_path / "models"
    publish_bundle(models)
    with _serving(root, models, tmp_path) as server:
        _ask(server, [make_picture((255, 0, 0)), make_picture((0, 255, 0)), make_picture((0, 0, 255)), b"no picture"])
        with _prometheus(root, server, tmp_path) as query:
            _eventually(lambda: _value(query, 'up{job="anther"}'), 1)
            assert _value(query, 'sum(anther_requests_total{method="Classify", code="OK"})') == 3
            assert _value(query, 'sum(anther_requests_total{code="INVALID_ARGUMENT"})') == 1
            assert _value(query, "sum(anther_predictions_total)") == 3
            assert _value(query, 'anther_model_ready{model="flowers", version="1"}') == 1
            _assert_model_info(query, Repository(models).open("flowers").manifest.files["model.onnx"])
            _assert_labels_exist(query, expressions)
            _eventually(lambda: {rule["health"] for rule in _rules(query)}, {"ok"})
            assert {rule["state"] for rule in _rules(query)} == {"inactive"}

            server.process.terminate()
            _eventually(lambda: _value(query, 'up{job="anther"}'), 0)
            _eventually(lambda: {rule["name"] for rule in _rules(query) if rule["state"] != "inactive"}, {"AntherDown"})


def _assert_model_info(query: Callable[[str], Any], sha256: str) -> None:
    (found,) = query("query?query=anther_model_info")["result"]
    expected = {"model": "flowers", "version": "1", "sha256": sha256, "precision": "fp32", "architecture": "colours"}
    assert found["metric"].items() >= {**expected, "provider": "CPUExecutionProvider", "job": "anther"}.items()
    assert found["value"][1] == "1"


def _assert_labels_exist(query: Callable[[str], Any], expressions: list[str]) -> None:
    """Each selector of the rules finds series once codes and reasons, which must not occur here, are left out."""
    for metric, matchers in {found for text in expressions for found in _SELECTOR.findall(text)}:
        others = re.sub(r"(code|reason)=.[^,]*", r"\1!=``", matchers)
        selector = f"{metric}{{{others}}}"
        assert query(f"query?query={urllib.parse.quote(selector)}")["result"], selector


def _metric_names() -> set[str]:
    """As Prometheus stores them."""
    metrics = Metrics()
    metrics.watch(float, float, float)
    found = metrics.registry.collect()
    return {metric.name + suffix for metric in found for suffix in _SUFFIXES.get(metric.type, [])}


def _ask(server: Server, pictures: list[bytes]) -> None:
    with Client(f"127.0.0.1:{server.grpc_port}", tls=server.authority) as client:
        for picture in pictures[:-1]:
            client.classify(picture)
        with pytest.raises(CallFailed):
            client.classify(pictures[-1])


@contextmanager
def _serving(root: Path, models: Path, folder: Path) -> Iterator[Server]:
    """`anther serve` as its own process, on free ports, with a certificate."""
    authority = Authority("tests")
    (folder / "ca.pem").write_bytes(authority.pem)
    certificate, key = map(str, authority.issue().write(folder))
    command = [sys.executable, "-m", "anther", "serve", "--models", str(models), "--device", "cpu"]
    command += ["--tls-cert", certificate, "--tls-key", key]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANTHER_")}
    with (
        (folder / "serve.log").open("w") as log,
        _running(
            [*command, "--grpc-port", "0", "--ops-port", "0"], env=environment, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        banner = process.stdout.readline() if process.stdout else ""
        ports = re.search(r"gRPC 127\.0\.0\.1:(\d+), operations http://127\.0\.0\.1:(\d+),", banner)
        assert ports, banner + (folder / "serve.log").read_text()
        yield Server(process, int(ports[1]), int(ports[2]), folder / "ca.pem")


@contextmanager
def _prometheus(root: Path, server: Server, folder: Path) -> Iterator[Callable[[str], Any]]:
    """The committed configuration but for the server's address; yields a function that asks Prometheus' HTTP API."""
    configuration = (root / "deploy/prometheus/prometheus.yml").read_text()
    assert configuration.count("service:8002") == 1
    (folder / "prometheus.yml").write_text(configuration.replace("service:8002", f"127.0.0.1:{server.ops_port}"))
    shutil.copy(root / "deploy/prometheus/alerts.yml", folder)
    address = f"127.0.0.1:{_free_port()}"
    flags = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
    }
    command = ["prometheus", *(f"--{name}={value}" for name, value in flags.items())]
    with (
        (folder / "prometheus.log").open("w") as log,
        _running(command, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        _eventually(lambda: _ready(process, address, folder / "prometheus.log"), True)
        yield lambda path: json.loads(_get(f"http://{address}/api/v1/{path}"))["data"]


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def _ready(process: subprocess.Popen[str], address: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return b"Ready" in _get(f"http://{address}/-/ready")
    except urllib.error.URLError:
        return False


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        body: bytes = response.read()
    return body


def _value(query: Callable[[str], Any], expression: str) -> float | None:
    result = query(f"query?query={urllib.parse.quote(expression)}")["result"]
    return float(result[0]["value"][1]) if result else None


def _rules(query: Callable[[str], Any]) -> list[dict[str, Any]]:
    return [rule for group in query("rules")["groups"] for rule in group["rules"]]


def _eventually(ask: Callable[[], Any], expected: object, within_s: float = 60.0) -> None:
    """Ask again and again until the answer is the expected one."""
    deadline = time.monotonic() + within_s
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"still {found!r} after {within_s:.0f} s; expected {expected!r}"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
