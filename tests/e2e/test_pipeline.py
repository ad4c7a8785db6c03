"""The whole path in real processes over real sockets: photos → retrain → serve → classify → the next version."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed; it comes with anther[training]")

COLOURS = {"daisy": (230, 230, 230), "roses": (200, 30, 60), "sunflowers": (230, 180, 30)}
PHOTOS = 40  # of each class
SMALL = ["--strategy", "head", "--weights", "none", "--resize", "40", "--crop", "32", "--batch-size", "8"]
MACHINE = ["--device", "cpu", "--workers", "0"]
ANTHER = [sys.executable, "-m", "anther"]
PATIENCE_S = 240

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def draw(path: Path, label: str, number: int) -> Path:
    """A photo of the class: its colour with grain of its own."""
    grain = np.random.default_rng([len(label), number]).integers(-25, 26, (40, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(COLOURS[label]) + grain, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in: photos for training, and others to classify."""
    home = tmp_path_factory.mktemp("home")
    for label in COLOURS:
        for number in range(PHOTOS):
            draw(home / "photos" / label / f"{number:03}.jpg", label, number)
        draw(home / "new" / f"{label}.png", label, PHOTOS)
    return home


@pytest.fixture(scope="module")
def anther(home: Path) -> Run:
    """`anther(…)` runs the command to its end in that folder."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [*ANTHER, *arguments]
        return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    return run


@pytest.fixture(scope="module")
def retrain(anther: Run) -> Run:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        done = anther("retrain", "--data", "photos", "--name", "flowers", *SMALL, *MACHINE, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def served(home: Path) -> Iterator[Callable[[], str]]:
    """`served()` starts a server on what was published, and gives its target."""
    processes: list[subprocess.Popen[str]] = []

    def serve() -> str:
        command = [*ANTHER, "serve", "--grpc-port", "0", "--ops-port", "0"]
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        found = re.search(r"gRPC (\S+),", process.stdout.readline())
        assert found
        return found[1]

    yield serve
    for process in processes:
        with process:
            process.terminate()
            assert process.wait(PATIENCE_S) == 0


def answers(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """What was answered, by the photo's name."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(line["photo"]).stem: line for line in lines}


def labels_and_versions(done: "subprocess.CompletedProcess[str]") -> tuple[dict[str, str], set[int]]:
    found = answers(done)
    labels = {photo: answer["predictions"][0]["label"] for photo, answer in found.items()}
    return labels, {answer["version"] for answer in found.values()}


@pytest.mark.timeout(300)
def test_photos_become_a_server_that_knows_them_and_takes_their_next_version(home, anther, retrain, served) -> None:
    right = {label: label for label in COLOURS}
    retrain()
    files = {path.name for path in (home / "models/flowers/1").iterdir()}
    assert files == {"model.onnx", "model.int8.onnx", "golden.npz", "manifest.json", "report.html"}

    target = served()
    done = anther("classify", "--json", "--target", target, "new")
    assert done.returncode == 0, done.stderr
    assert labels_and_versions(done) == (right, {1})
    for answer in answers(done).values():
        assert (answer["model"], answer["provider"], answer["error"]) == ("flowers", "CPUExecutionProvider", None)

    (home / "broken.jpg").write_bytes(b"junk")
    done = anther("classify", "--target", target, "new", "broken.jpg")
    assert done.returncode == 1
    assert "3 of 4 answered by flowers/1 on CPUExecutionProvider" in done.stdout

    retrain("--seed", "1")
    ends = time.monotonic() + PATIENCE_S
    versions = {1}
    while versions != {2} and time.monotonic() < ends:  # the running server takes it over at one of its next looks
        labels, versions = labels_and_versions(anther("classify", "--json", "--target", target, "new"))
        assert labels == right
    assert versions == {2}
