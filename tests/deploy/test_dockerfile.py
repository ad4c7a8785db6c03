"""The service's image: what it holds, whom it runs as, and that its health check tells the truth."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.config import Settings
from service.http.ops import OpsServer

SETTINGS = {f"ANTHER_{name.upper()}" for name in Settings.__dataclass_fields__}


def test_every_stage_starts_from_the_same_pinned_base(stages, arguments):
    """An environment made with one Python does not run with another, and a moving tag is no release."""
    name, _, tag = arguments["BASE"].partition(":")
    assert name == "python"
    assert re.match(r"3\.\d+-slim-\w+$", tag)
    earlier = {stage.name for stage in stages}
    assert all(stage.base == "${BASE}" or stage.base in earlier for stage in stages)


def test_the_image_takes_everything_from_build_stages(image, stages):
    """No installer runs in the image itself: compilers, caches and pip stay behind."""
    assert len(stages) > 1
    assert all(not copied.sources() for copied in image.all("COPY"))
    assert not any(re.search(r"\b(pip|apt-get|apt)\b", command.text) for command in image.all("RUN"))


def test_no_change_of_source_or_model_reinstalls_the_requirements(stages):
    """The stage that installs them sees nothing but the list of requirements, which comes from pyproject.toml alone."""
    by_name = {stage.name: stage for stage in stages}
    copied = [source for found in by_name["dependencies"].all("COPY") for source in found.sources()]
    assert copied == []
    assert by_name["dependencies"].one("COPY").text.startswith("--from=requirements ")
    assert by_name["requirements"].one("COPY").sources() == ["pyproject.toml"]


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_requirements_are_those_of_the_extra(stages, root, tmp_path, extra):
    """The command of the build, run here, gives the service's requirements and the extra's, and never torch."""
    command = next(stage for stage in stages if stage.name == "requirements").one("RUN").text
    command = command.replace("python3", sys.executable).replace("/pyproject.toml", str(root / "pyproject.toml"))
    command = command.replace("/requirements.txt", str(tmp_path / "requirements.txt"))
    subprocess.run(["sh", "-c", command], env={"EXTRA": extra}, check=True)
    found = (tmp_path / "requirements.txt").read_text().splitlines()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras[extra][0] == "anther[server]"
    assert found == [*project["dependencies"], *extras["bundle"], *extras["server"][1:], *extras[extra][1:]]
    assert not any(requirement.startswith("torch") for requirement in found)


def test_the_context_holds_what_is_copied_and_nothing_else(stages, root):
    """.dockerignore lets through the files that a COPY names: all packages of the distribution, no photo, no run."""
    lines = (root / ".dockerignore").read_text().splitlines()
    copied = {source for stage in stages for found in stage.all("COPY") for source in found.sources()}
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((root / source).exists() for source in copied)
    assert {"anther", "bundle", "service", "training"} <= copied


def test_it_runs_as_a_numbered_user_without_rights(image):
    """A number, because an orchestrator that demands 'not root' cannot look up names."""
    user = image.one("USER").text
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert image.body.index(image.one("USER")) > max(map(image.body.index, image.all("RUN") + image.all("COPY")))


def test_commands_get_signals_themselves(image):
    """Exec form: a shell in between would keep SIGTERM from the server."""
    assert image.one("ENTRYPOINT").form() == ["anther"]
    assert image.one("CMD").form() == ["serve"]
    assert image.one("STOPSIGNAL").text == "SIGTERM"


def test_its_settings_are_settings_of_the_service(environment):
    given = {name: value for name, value in environment.items() if name.startswith("ANTHER_")}
    assert given == {"ANTHER_HOST": "0.0.0.0", "ANTHER_MODELS": "/models"}
    assert given.keys() <= SETTINGS


def test_nothing_is_reported_to_third_parties(environment):
    """ONNX Runtime's own reports are off."""
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"


def test_it_exposes_the_default_ports(image):
    assert image.one("EXPOSE").text.split() == [
        str(port) for port in (Settings.http_port, Settings.grpc_port, Settings.ops_port)
    ]


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1)])
def test_the_health_check_follows_readiness(image, ready, code):
    with _ops(ready) as port:
        assert _check(image, port) == code


def test_the_health_check_fails_without_a_server(image):
    with _ops(True) as port:
        pass
    assert _check(image, port) == 1


@contextmanager
def _ops(ready: bool) -> Iterator[int]:
    def answer() -> dict[str, Any]:
        return {"ok": ready}

    with closing(OpsServer("127.0.0.1", 0, CollectorRegistry(), answer, answer)) as server:
        yield server.port


def _check(image: Any, port: int) -> int:
    """The exit code of the image's own command, run with this Python."""
    program, *words = image.one("HEALTHCHECK").form()
    assert program == "python"
    environment = {**os.environ, "ANTHER_OPS_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False)
    return done.returncode
