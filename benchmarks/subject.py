"""What is measured: which picture, and a server in a process of its own."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from anther import CallFailed, Classification, Client

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "sunflowers.jpg"
_START_LIMIT_S = 60.0

photo_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--photo", default=PHOTO, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Picture to send."
)
expect_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--expect", default=None, help="Label that the picture must get; by default the file's name."
)
options_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--option", "options", multiple=True, help="Passed on to `anther serve`, such as --option=--lanes=3."
)


@dataclass
class Ports:
    """Where a running `anther serve` is reached: gRPC by its address, HTTP and operations by their URLs."""

    process: "subprocess.Popen[str]"
    target: str
    http: str
    ops: str


@dataclass
class Server(Ports):
    """`first_answer_s` is the time from starting the process to its first answer."""

    first_answer_s: float
    answer: Classification

    def require(self, photo: Path, expect: str | None) -> None:
        """The first answer must be this label, or the file's name, or the figures mean nothing."""
        found, label = self.answer.predictions[0].label, expect or photo.stem
        if found != label:
            sys.exit(f"{photo} was answered '{found}', expected '{label}'")

    def memory_mb(self) -> float:
        """Resident memory, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024 / 1e6


@contextmanager
def serving(models: Path, photo: Path, port: int, options: tuple[str, ...] = ()) -> Iterator[Server]:
    """Start `anther serve` on a fixed gRPC port, so that the first answer can be waited for from the first moment."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "anther", "serve", "--models", str(models), "--grpc-port", str(port)]
    # One process, whose memory is measured, unless the options say more.
    fixed = ["--http-port", "0", "--ops-port", "0", "--workers", "1"]
    process = subprocess.Popen(
        [*command, *fixed, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        target = f"127.0.0.1:{port}"
        answer = _first_answer(target, photo, started)
        elapsed = time.perf_counter() - started
        assert process.stdout is not None
        found = re.search(r"HTTP (http://\S+), .*operations (http://\S+),", process.stdout.readline())
        assert found is not None
        yield Server(process, target, found[1], found[2], elapsed, answer)
    finally:
        process.terminate()
        process.wait(30)


def _first_answer(target: str, photo: Path, started: float) -> Classification:
    data = photo.read_bytes()
    while True:
        try:
            with Client(target) as client:  # a new connection: gRPC waits longer and longer before it tries again
                return client.classify(data)
        except CallFailed as failed:
            if failed.code != "UNAVAILABLE" or time.perf_counter() - started > _START_LIMIT_S:
                raise
            time.sleep(0.01)
