"""The service's image: what it holds, whom it runs as, and that its health check tells the truth."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
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
    """The stages that install see nothing but locks."""
    by_name = {stage.name: stage for stage in stages}
    assert by_name["installer"].one("COPY").sources() == ["deploy/build.lock"]
    assert by_name["dependencies"].one("COPY").sources() == ["deploy/${EXTRA}.lock"]


def test_whatever_pip_fetches_is_pinned_by_its_digest(stages):
    installs = [
        run.text for stage in stages for run in stage.all("RUN") if re.search(r"pip\S* .*(install|wheel)", run.text)
    ]
    assert len(installs) == 3
    assert all("--require-hashes" in text or text.count("--no-index") == 2 for text in installs)


@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_the_lock_has_the_requirements_of_the_extra(root, extra):
    """Where this fails, `deploy/renew_locks.sh --keep` adds what pyproject.toml asks for."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    asked = [
        Requirement(each) for each in [*project["dependencies"], *_brought(project["optional-dependencies"], extra)]
    ]
    locked = _locked(root / f"deploy/{extra}.lock")
    assert {each.name for each in asked} - set(locked) == set()
    assert all(version in each.specifier for each in asked for version in locked[each.name])
    assert not any(name.startswith("torch") for name in locked)


@pytest.mark.parametrize("name", ["cpu", "gpu", "build"])
def test_a_lock_pins_each_package_by_digest_and_names_no_registry(root, name):
    text = (root / f"deploy/{name}.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[a-z0-9-]+==\S+ .*\\\n    --hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert "--index" not in text


def _brought(extras: dict[str, list[str]], name: str) -> list[str]:
    """The requirements of an extra, those of extras that it names included."""
    inner = {each: re.fullmatch(r"anther\[(\w+)\]", each) for each in extras[name]}
    return [part for each, other in inner.items() for part in (_brought(extras, other[1]) if other else [each])]


def _locked(lock: Path) -> dict[str, list[str]]:
    """Name → versions; of several each has a marker for its Pythons."""
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+) ", lock.read_text(), re.MULTILINE):
        locked.setdefault(name, []).append(version)
    return locked


def test_the_context_holds_what_is_copied_and_nothing_else(stages, root):
    """.dockerignore lets through the files that a COPY names: all packages of the distribution, no photo, no run."""
    lines = (root / ".dockerignore").read_text().splitlines()
    named = {source for stage in stages for found in stage.all("COPY") for source in found.sources()}
    copied = {source.replace("${EXTRA}", extra) for source in named for extra in ("cpu", "gpu")}
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
