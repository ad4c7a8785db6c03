"""A model is replaced in service: a better version takes over under load, a worse one never gets there."""

import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed; it comes with anther[training]")

from anther import CallFailed, Client, cli

COLOURS = {"daisy": (230, 230, 230), "roses": (200, 30, 60), "sunflowers": (230, 180, 30)}
PHOTOS = 40  # of each class: about twelve in the test split
TINY = [
    *("--backbone", "small_cnn", "--strategy", "scratch", "--weights", "none", "--batch-size", "8"),
    *("--resize", "40", "--crop", "32", "--train-size", "32", "--mixup", "0"),
    *("--device", "cpu", "--workers", "0", "--max-slowdown", "50"),
]
GOOD = ["--epochs", "4"]
BAD = ["--epochs", "1", "--lr", "1e-8"]  # as good as untrained
PATIENCE_S = 240
PAUSE_S = 0.005  # between two requests; without one they take the cores from what trains meanwhile

pytestmark = pytest.mark.no_cover  # tracing doubles the time; other tests cover the same lines


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos of one colour and grain for each class."""
    for label, colour in COLOURS.items():
        for number in range(PHOTOS):
            grain = np.random.default_rng([len(label), number]).integers(-25, 26, (40, 48, 3))
            path = tmp_path / "photos" / label / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`retrain(…)` runs `anther retrain` in this process, which spares it importing torch, and gives its exit code."""

    def run(*options: str) -> object:
        command = ["anther", "retrain", "--data", "photos", "--name", "flowers", *TINY, *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0

    return run


@pytest.fixture
def target(home: Path, retrain: Callable[..., object]) -> Iterator[str]:
    """A server in a process of its own, on a first version that is bad."""
    assert retrain(*BAD) == 0
    command = [sys.executable, "-m", "anther", "serve", "--grpc-port", "0", "--ops-port", "0", "--watch-s", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"gRPC (\S+),", process.stdout.readline())
        assert found
        yield found[1]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


class Asking:
    """Asks again and again, and notes which version answered or why none did."""

    def __init__(self, target: str, picture: bytes) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[CallFailed] = []
        self._target, self._picture, self._enough = target, picture, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with Client(self._target) as client:
            while not self._enough.wait(PAUSE_S):
                try:
                    self.answers[client.classify(self._picture).version] += 1
                except CallFailed as failure:
                    self.failures.append(failure)

    def wait_for(self, version: int) -> None:
        """Until that version has answered often."""
        ends = time.monotonic() + PATIENCE_S
        enough = self.answers[version] + 50
        while self.answers[version] < enough:
            assert time.monotonic() < ends, f"{self.answers}, {self.failures}"
            time.sleep(0.01)

    def stop(self) -> None:
        self._enough.set()
        self._thread.join(PATIENCE_S)


@pytest.mark.timeout(300)
def test_only_a_better_version_reaches_the_clients_and_none_of_them_notices(home, retrain, target, capfd) -> None:
    asking = Asking(target, (home / "photos/roses/000.png").read_bytes())
    try:
        asking.wait_for(1)
        assert retrain(*GOOD) == 0
        asking.wait_for(2)
        capfd.readouterr()
        assert retrain(*BAD, "--seed", "1") == 1
        (refusal,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("anther: ")]
        assert "the new version of 'flowers' is not published: it is significantly less accurate" in refusal
        assert "flowers/2 goes on serving" in refusal
        assert {path.name for path in (home / "models/flowers").iterdir()} == {"1", "2"}
        asking.wait_for(2)
    finally:
        asking.stop()
    assert asking.failures == []
    assert set(asking.answers) == {1, 2}
    verdict = json.loads((home / "models/flowers/2/manifest.json").read_text())["gate"]
    assert (verdict["passed"], verdict["champion"]) == (True, "flowers/1")
    assert verdict["only_challenger_right"] > verdict["only_champion_right"]


@pytest.mark.timeout(300)
def test_a_watch_publishes_by_itself_and_ends_on_a_signal(home) -> None:
    command = [sys.executable, "-m", "anther", "retrain", "--watch", "--min-new", "100", "--every-s", "0.1",
               "--settle-s", "0.2", "--data", "photos", "--name", "flowers", *TINY, *GOOD]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "published as version 1" in line:
                process.terminate()
        assert process.wait(PATIENCE_S) == 0, "".join(said)
    assert said[-1] == "watching   ended\n"
    assert (home / "models/flowers/1/manifest.json").exists()
