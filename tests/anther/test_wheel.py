"""The wheel, installed into environments of its own and used from a project that has a `service`, a `training` and a
`bundle` itself.

The plain environment holds what `pip install anther` brings. The full one is lent all that the tests run with, behind
the wheel: the server's and the trainer's packages would take minutes to install.
"""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120
BANNER = re.compile(r"gRPC (\S+), operations (http://\S+), (.+)")
NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|No matching distribution")
SHADOWED = re.compile(r'anther_shadow_total\{[^}]*outcome="(\w+)"[^}]*\} [1-9]')
CLIENT = """
import asyncio, sys
import bundle, service, training  # the project's own stay its own
from anther import AsyncClient, CallFailed, Client
assert (service.OWNER, training.OWNER, bundle.__file__) == ("the project", "the project", None)

async def explained(target, photo):
    async with AsyncClient(target) as client:
        return await client.explain(photo)

target, photo = sys.argv[1:]
with Client(target) as client:
    answer, (many, refused) = client.classify(photo), client.classify_many([photo, b"junk"])
    assert many.predictions == answer.predictions
    assert isinstance(refused, CallFailed)
    assert client.list_models() == [client.get_model()]
assert asyncio.run(explained(target, photo)).explained == answer.predictions[0]
assert not {"numpy", "PIL"} & sys.modules.keys()
print(answer.model, answer.version)
"""
TYPED = """
from anther import CallFailed, Client

def best(path: str) -> str:
    with Client() as client:
        answer = client.classify(path, model="flowers", top_k=1)
        reveal_type(client.get_model().metrics.top1_interval)
        reveal_type(client.explain(path).evidence)
        return answer.predictions[0].label

def many(client: Client, paths: list[str]) -> list[str]:
    found = client.classify_many(paths)
    return [each.reason if isinstance(each, CallFailed) else each.model for each in found]
"""


class Environment:
    """A virtual environment with the wheel; what it runs is run in a project's folder, which is on Python's path."""

    def __init__(self, folder: Path, project: Path) -> None:
        venv.create(folder)
        self.site = next(folder.glob("lib/python*/site-packages"))
        self.python, self._scripts, self._project = folder / "bin/python", folder / "bin", project

    def install(self, *what: str | Path) -> None:
        pip("--python", self.python, "install", "--no-compile", *what)

    def start(self, command: str, *arguments: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self._scripts / command, *arguments], cwd=self._project, env={**os.environ, "PYTHONPATH": "."},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, command: str, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        with self.start(command, *arguments) as process:
            output, errors = process.communicate(timeout=PATIENCE_S)
        return process.returncode, output, errors

    @contextlib.contextmanager
    def serving(self, *options: str) -> Iterator[tuple[str, str, str]]:
        """What the banner says: target, operations, models."""
        with self.start("anther", "serve", "--grpc-port", "0", "--ops-port", "0", *options) as process:
            try:
                found = BANNER.search(process.stdout.readline())
                assert found, process.communicate(timeout=PATIENCE_S)
                yield found.groups()
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE_S)


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"the package index is out of reach: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    return next(folder.glob("anther-*.whl"))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Two packages and, without an `__init__`, a namespace package."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("service", "training", "bundle"):
        (folder / name).mkdir()
    for name in ("service", "training"):
        (folder / name / "__init__.py").write_text("OWNER = 'the project'\n")
    return folder


@pytest.fixture(scope="module")
def plain(wheel: Path, project: Path, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("plain"), project)
    environment.install(wheel)
    return environment


@pytest.fixture(scope="module")
def full(wheel: Path, project: Path, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("full"), project)
    environment.install("--no-deps", wheel)
    lent = [path for path in sys.path if path.endswith("site-packages")]
    (environment.site / "lent.pth").write_text("\n".join(lent))
    return environment


@pytest.fixture(scope="module")
def photo(tmp_path_factory, make_picture) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(make_picture((255, 200, 0)))
    return path


@pytest.fixture(scope="module")
def server(full: Environment) -> Iterator[tuple[str, str, str]]:
    """Two workers on whatever model there is where no folder is named."""
    with full.serving("--workers", "2") as banner:
        yield banner


# What a client needs


def test_a_client_brings_no_more_than_it_needs(plain: Environment) -> None:
    code = "from importlib import metadata; print(*sorted(each.name.lower() for each in metadata.distributions()))"
    _, output, _ = plain.run("python", "-c", code)
    assert {name.replace("_", "-") for name in output.split()} == {
        "anther", "click", "googleapis-common-protos", "grpcio", "protobuf", "rich",
        "markdown-it-py", "mdurl", "pygments", "typing-extensions",  # what these bring
    }  # fmt: skip


def test_a_client_asks_from_a_project_with_such_names(plain: Environment, server, photo: Path) -> None:
    assert plain.run("python", "-c", CLIENT, server[0], photo) == (0, "flowers 3\n", "")


def test_photos_are_classified_into_a_file_without_an_extra(plain: Environment, server, photo: Path, tmp_path) -> None:
    output = tmp_path / "results.csv"
    for _ in range(2):
        code, _, errors = plain.run("anther", "classify", "--target", server[0], "--output", output, photo)
        assert (code, errors) == (0, "")
    assert len(output.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["serve"], "cpu"), (["models", "list"], "cpu"), (["train", "--data", ".", "--name", "x"], "training"),
        (["data", "check", "."], "training"), (["classify", "--output", "x.parquet", "PHOTO"], "parquet"),
    ],
)  # fmt: skip
def test_what_needs_an_extra_names_it_in_one_line(plain: Environment, photo: Path, arguments, extra: str) -> None:
    given = [str(photo) if word == "PHOTO" else word for word in arguments]
    code, output, errors = plain.run("python", "-m", "anther", *given)
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert errors.endswith(f"; run `pip install 'anther[{extra}]'`\n")


def test_a_users_program_passes_mypy_strict(plain: Environment, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", tmp_path / "cache"]
    command += ["--python-executable", plain.python, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    revealed = re.findall(r'Revealed type is "(.+)"', done.stdout)
    assert [name.replace("builtins.", "") for name in revealed] == [
        "tuple[float, float]",
        "tuple[tuple[float, ...], ...]",
    ]


# The server


def test_two_workers_serve_the_embedded_model(server) -> None:
    assert server[2].startswith("flowers/3 on CPUExecutionProvider, 2 workers")


@pytest.mark.parametrize("command", [["anther"], ["python", "-m", "anther"]])
def test_the_models_are_listed_from_there(full: Environment, command: list[str]) -> None:
    code, output, _ = full.run(*command, "models", "list")
    assert code == 0
    assert output.splitlines()[1].split()[:2] == ["flowers/3", "stable"]


def test_the_embedded_model_is_not_changed_in_place(full: Environment) -> None:
    code, output, errors = full.run("anther", "models", "pin", "flowers", "3")
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert "it belongs to the installed program" in errors
    assert "copy " in errors
    assert not list(full.site.rglob("serving.json"))


def test_a_folder_of_models_goes_before_the_embedded_one(full, plain, project, publish_bundle, photo) -> None:
    """Version 2 is a shadow, which is computed in a process of its own."""
    with removed(project / "models") as models:
        models.mkdir()
        code, _, errors = full.run("anther", "serve", "--grpc-port", "0", "--ops-port", "0")
        assert (code, "no model in models can serve (there is none)" in errors) == (1, True)
        publish_bundle(models)
        assert full.run("anther", "models", "pin", "flowers", "1")[0] == 0
        publish_bundle(models, seed=1)
        assert full.run("anther", "models", "promote", "flowers", "2", "--shadow", "1")[0] == 0
        with full.serving() as (target, operations, served):
            assert served.startswith("flowers/1")
            assert plain.run("python", "-c", CLIENT, target, photo)[:2] == (0, "flowers 1\n")
            outcome = eventually(lambda: SHADOWED.search(page(operations)))
    assert outcome[1] in ("agree", "disagree")


# Training


PHOTOS = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_picture) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for place, name in enumerate(("red", "blue")):
        (folder / name).mkdir()
        for number in range(PHOTOS):
            colour = (220 - 5 * number, number, 40) if place == 0 else (40, number, 220 - 5 * number)
            (folder / name / f"{number}.png").write_bytes(make_picture(colour))
    return folder


@pytest.fixture(scope="module")
def recipe(photos: Path) -> list[str]:
    options = "--name x --weights none --backbone small_cnn --strategy scratch --epochs 1 --batch-size 8 --workers 1"
    sizes = "--crop 32 --resize 36 --train-size 32 --stored-size 40"
    return ["--data", str(photos), *options.split(), *sizes.split()]


def test_torchrun_trains_with_our_own_packages(full: Environment, recipe: list[str]) -> None:
    """A process by torchrun, one by the fork server, and the fork server itself."""
    pytest.importorskip("torch", reason="torch is not installed")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "anther", "train"]
    code, output, errors = full.run("python", *torchrun, *recipe)
    assert code == 0, errors
    assert re.search(r"next +anther export runs/x/", output)


def test_a_retrain_that_watches_starts_processes_of_our_own(full: Environment, recipe: list[str]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    watch = ["retrain", "--watch", "--min-new", "1", "--settle-s", "0", "--every-s", "1"]
    with full.start("anther", *watch, *recipe, "--workers", "0", "--runs", "watched") as process:
        give_up = threading.Timer(PATIENCE_S, process.kill)
        give_up.start()
        begun = any(line.startswith("run ") for line in process.stderr)
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        give_up.cancel()
    assert begun


# Other distributions


def test_a_distribution_that_overwrote_a_module_is_named(full: Environment) -> None:
    module = full.site / "anther/_program/service/app.py"
    before, record = module.read_text(), full.site / "intruder-1.0.dist-info/RECORD"
    with removed(record.parent):
        try:
            module.write_text("print('intruder')\n")
            record.parent.mkdir()
            record.write_text("anther/_program/service/app.py,sha256=x,18\n")
            code, output, errors = full.run("anther", "serve")
        finally:
            module.write_text(before)
    assert (code, output, len(errors.splitlines())) == (1, "", 1)
    assert errors.startswith(f"anther: {module} is Anther's, but the distribution 'intruder'")
    assert full.run("anther", "--version")[0] == 0


@contextlib.contextmanager
def removed(folder: Path) -> Iterator[Path]:
    """Afterwards it is not there."""
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


def eventually(found: Callable[[], "re.Match[str] | None"]) -> "re.Match[str]":
    ends = time.monotonic() + PATIENCE_S
    while (match := found()) is None:
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.1)
    return match


def page(operations: str) -> str:
    with urllib.request.urlopen(f"{operations}/metrics", timeout=PATIENCE_S) as answer:
        return answer.read().decode()
