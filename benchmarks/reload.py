"""New versions under load: `python -m benchmarks.reload [--reloads 20]`.

One h2load run goes through it all, and its log says when each request began. The same model is published again and
again under new numbers, and the requests that met a reload are compared with those just before. Prints one JSON line.
"""

import bisect
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.load import classify, h2load, require_h2load
from benchmarks.subject import Server, photo_option, serving
from benchmarks.vitals import read_vitals
from bundle.repository import Repository
from service.system.cores import usable_cores

_PORT = 18011
_WATCH_S = 0.1  # so that nearly all of what is measured as a reload is one
_SETTLE_S = 0.1  # after the switch: the old version is freed
_MAX_RELOAD_S = 20.0
_MAX_LOAD_S = 3600  # it is ended when all is measured


Span = tuple[float, float]
"""Seconds since 1970."""


@dataclass(frozen=True)
class Round:
    """A reload, the time before it, and the server's resident memory at the beginning of that, in bytes."""

    before: Span
    during: Span
    memory: int


@dataclass(frozen=True)
class Requests:
    """As h2load logged them, in the order they began: seconds since 1970, and latencies in ms."""

    began: list[float]
    latencies: list[float]

    def latencies_in(self, spans: Iterable[Span]) -> list[float]:
        """Of the requests that were on their way at some moment of these spans."""
        return [latency for span in spans for latency in self._within(*span)]

    def _within(self, start: float, end: float) -> Iterable[float]:
        last = bisect.bisect_right(self.began, end)
        begun = zip(self.began[:last], self.latencies[:last], strict=True)
        return (latency for at, latency in begun if at + latency / 1000 >= start)


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--callers", default=8, show_default=True, help="Closed-loop callers.")
@click.option("--reloads", default=20, show_default=True, help="Versions to publish.")
@click.option("--calm", default=2.0, show_default=True, help="Seconds of load before each; ten times that at first.")
def main(models: Path, model: str, photo: Path, callers: int, reloads: int, calm: float) -> None:
    """Latency before and during reloads, what a reload takes, failed requests, and memory before and after."""
    require_h2load()
    with tempfile.TemporaryDirectory() as folder:
        root, source = Path(folder), _newest(models, model)
        shutil.copytree(source, root / model / "1")
        with serving(root, photo, _PORT, (f"--watch-s={_WATCH_S}",)) as server:
            load = _start_load(server, photo, root, callers)
            os.nice(19)  # of this process alone, started last: publishing goes on elsewhere as a rule
            rounds = _rounds(server, root, model, source, reloads, calm)
            failed = _refused(server)
            load.terminate()
            load.wait()
        print(json.dumps(_summary(rounds, _read(root / "log"), failed)))


def _rounds(server: Server, root: Path, model: str, source: Path, reloads: int, calm: float) -> list[Round]:
    time.sleep(9 * calm)  # connections, caches, every lane's memory
    rounds = []
    for _ in range(reloads):
        memory, started = read_vitals(server.process.pid).memory, time.time()
        time.sleep(calm)
        before = (started, time.time())
        rounds.append(Round(before, _reload(server, root, model, source), memory))
    time.sleep(calm)
    return [*rounds, Round(before, before, read_vitals(server.process.pid).memory)]


def _summary(rounds: list[Round], requests: Requests, failed: int) -> dict[str, object]:
    *rounds, last = rounds
    before, during = (requests.latencies_in(each) for each in zip(*((r.before, r.during) for r in rounds), strict=True))
    took = [end - start - _SETTLE_S for start, end in (each.during for each in rounds)]
    p99_before, p99_during = _p99(before), _p99(during)
    return {
        "cores": usable_cores(),
        "reloads": len(rounds),
        "requests": len(requests.began),
        "failed": failed,
        "p50_before_ms": round(statistics.median(before), 1),
        "p50_during_ms": round(statistics.median(during), 1),
        "p99_before_ms": round(p99_before, 1),
        "p99_during_ms": round(p99_during, 1),
        "ratio": round(p99_during / p99_before, 2),
        "reload_s": round(statistics.median(took), 2),
        "slowest_reload_s": round(max(took), 2),
        "memory_before_mb": round(rounds[0].memory / 1e6, 1),
        "memory_after_first_mb": round(rounds[1].memory / 1e6, 1),
        "memory_after_mb": round(last.memory / 1e6, 1),
    }


def _p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))]


def _newest(models: Path, model: str) -> Path:
    return Repository(models).open(model).path


def _reload(server: Server, root: Path, model: str, source: Path) -> Span:
    """From the moment that the new version can be seen to a moment after the old one has left."""
    started = time.time()

    def write(staging: Path) -> None:
        nonlocal started
        for file in source.iterdir():
            shutil.copyfile(file, staging / file.name)

    version = Repository(root).publish(model, write).version
    started = (root / model / str(version)).stat().st_ctime  # the rename
    while _serving(server, model) != version:
        if time.time() - started > _MAX_RELOAD_S:
            sys.exit(f"version {version} does not serve after {_MAX_RELOAD_S} s")
        time.sleep(0.05)
    time.sleep(_SETTLE_S)
    return started, time.time()


def _start_load(server: Server, photo: Path, root: Path, callers: int) -> "subprocess.Popen[bytes]":
    call = classify(photo)
    timing = [f"--clients={callers}", "--max-concurrent-streams=1", f"--duration={_MAX_LOAD_S}", call.url(server)]
    command = [*h2load(call, root, root / "log"), *timing]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _read(log: Path) -> Requests:
    lines = sorted(tuple(map(int, line.split())) for line in log.read_text().splitlines())
    if any(status != 200 for _, status, _ in lines):
        sys.exit("not every request was answered")
    return Requests([began / 1e6 for began, *_ in lines], [micros / 1000 for *_, micros in lines])


def _serving(server: Server, model: str) -> int:
    with urllib.request.urlopen(f"{server.ops}/readyz") as response:
        return int(json.load(response)["models"][model])


def _refused(server: Server) -> int:
    """Calls that did not end as OK, while all callers were still there; to h2load a gRPC error is no failure."""
    with urllib.request.urlopen(f"{server.ops}/metrics") as response:
        found = re.findall(r"^anther_rejected_total\{.*\} (\S+)", response.read().decode(), re.MULTILINE)
    return round(sum(map(float, found)))


if __name__ == "__main__":
    main()
