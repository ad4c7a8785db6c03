"""The compose files: hardened containers, ports on this machine alone, a GPU only where it is asked for."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from typing import Any, get_args

import pytest

from service.config import Device, Settings

FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
SETTINGS = {f"ANTHER_{name.upper()}" for name in Settings.__dataclass_fields__}
_SECONDS = {"s": 1, "m": 60}


@pytest.mark.parametrize("name", ["service", "prometheus"])
def test_containers_are_hardened(compose, name):
    """A read-only root, no capability, and no way to gain one."""
    container = compose["services"][name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["restart"] == "unless-stopped"
    assert "privileged" not in container


@pytest.mark.parametrize("name", ["service", "prometheus"])
def test_ports_are_open_to_this_machine_alone(compose, name):
    assert all(port.startswith("127.0.0.1:") for port in compose["services"][name]["ports"])


def test_the_service_is_built_from_this_repository(compose, root):
    build = compose["services"]["service"]["build"]
    assert build["context"] == "."
    assert (root / build["dockerfile"]).is_file()
    assert build["args"] == {"EXTRA": "cpu"}


def test_the_service_publishes_its_default_ports(compose):
    published = [port.split(":")[1:] for port in compose["services"]["service"]["ports"]]
    assert published == [[str(port), str(port)] for port in (Settings.http_port, Settings.grpc_port, Settings.ops_port)]


def test_the_service_may_only_write_to_tmp(compose):
    service = compose["services"]["service"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert all(mount["read_only"] for mount in service["volumes"])
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])


def test_the_models_are_mounted_where_the_image_looks_for_them(compose, environment):
    (mount,) = compose["services"]["service"]["volumes"]
    assert mount["target"] == environment["ANTHER_MODELS"]
    assert mount["source"] == "./models"
    assert mount["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("variant", ["compose", "gpu_compose"])
def test_settings_in_the_environment_are_settings_of_the_service(request, variant):
    given = request.getfixturevalue(variant)["services"]["service"]["environment"]
    assert given.keys() <= SETTINGS
    assert given["ANTHER_DEVICE"] in get_args(Device)


def test_accepted_requests_are_answered_before_the_kill(compose):
    service = compose["services"]["service"]
    assert _seconds(service["stop_grace_period"]) >= float(service["environment"]["ANTHER_GRACE_S"]) + 5


def test_the_health_check_is_the_one_of_the_image(compose, image):
    """One command in one place: the compose file sets its rhythm alone."""
    assert "test" not in compose["services"]["service"]["healthcheck"]
    assert image.one("HEALTHCHECK").form()


def test_prometheus_is_a_pinned_release_and_waits_for_the_service(compose):
    prometheus = compose["services"]["prometheus"]
    assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", prometheus["image"])
    assert prometheus["depends_on"] == {"service": {"condition": "service_healthy"}}


def test_prometheus_reads_our_configuration_and_keeps_its_data(compose, root):
    prometheus = compose["services"]["prometheus"]
    mounts = dict(mount.split(":", 1) for mount in prometheus["volumes"])
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in prometheus["command"])
    assert mounts["./deploy/prometheus"] == "/etc/prometheus:ro"
    assert (root / "deploy/prometheus" / flags["config.file"].removeprefix("/etc/prometheus/")).is_file()
    assert mounts["prometheus"] == flags["storage.tsdb.path"]
    assert "prometheus" in compose["volumes"]


def test_the_override_reserves_one_gpu_and_insists_on_it(compose, gpu_compose):
    plain, service = compose["services"]["service"], gpu_compose["services"]["service"]
    assert "deploy" not in plain
    assert service["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    assert service["environment"]["ANTHER_DEVICE"] == "cuda"
    assert service["image"] != plain["image"]


def test_the_override_builds_the_gpu_variant_and_keeps_the_rest(compose, gpu_compose, root):
    plain, service = compose["services"]["service"], gpu_compose["services"]["service"]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert service["build"] == {**plain["build"], "args": {"EXTRA": "gpu"}}
    assert any(requirement.startswith("onnxruntime-gpu[") for requirement in extras["gpu"])
    same = plain.keys() - {"image", "build", "environment", "mem_limit"}
    assert {key: service[key] for key in same} == {key: plain[key] for key in same}


@pytest.mark.skipif(importlib.util.find_spec("check_jsonschema") is None, reason="check-jsonschema is not installed")
@pytest.mark.parametrize("file", FILES)
def test_files_follow_the_compose_specification(root, file):
    """The specification's own JSON schema knows every field and its type."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(root / file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("count", [1, 2], ids=["cpu", "gpu"])
def test_docker_compose_takes_the_files(root, count):
    """Docker's own reading of the files, where its compose plugin is installed; no engine is asked."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its compose plugin is not installed")
    files = [word for file in FILES[:count] for word in ("--file", str(root / file))]
    done = subprocess.run([docker, "compose", *files, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _seconds(duration: Any) -> int:
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()
    return int(number) * _SECONDS[unit]
