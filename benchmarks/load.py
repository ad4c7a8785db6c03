"""The load: h2load (Debian's nghttp2-client) posts a prebuilt gRPC frame, or a photo, and takes 2–3 % of two cores.

A Python load generator on the same cores takes so much that it measures itself.
"""

import itertools
import json
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from anther.open_inference import open_inference_pb2 as inference
from anther.v1 import classifier_pb2 as pb
from benchmarks.subject import Ports
from service.system.cores import usable_cores

_WITHOUT_END_S = 24 * 60 * 60


@dataclass(frozen=True)
class Load:
    """What h2load saw. Latencies in ms, sorted; `cpu` is its own share of all cores."""

    per_s: float
    latencies: list[float]
    cpu: float

    def quantile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


@dataclass(frozen=True)
class Call:
    """The request that is made over and over, over gRPC."""

    service: str
    method: str
    message: bytes
    headers: tuple[str, ...] = ()
    protocol: ClassVar[str] = "grpc"
    options: ClassVar[tuple[str, ...]] = ("--header=content-type: application/grpc", "--header=te: trailers")

    def url(self, server: Ports) -> str:
        scheme = server.http.partition(":")[0]  # both ports speak TLS, or none
        return f"{scheme}://{server.target}/{self.service}/{self.method}"

    @property
    def body(self) -> bytes:
        return b"\0" + struct.pack(">I", len(self.message)) + self.message


@dataclass(frozen=True)
class Post:
    """The same over HTTP/1.1: a path, and what is posted to it."""

    path: str
    method: str
    body: bytes
    headers: tuple[str, ...] = ()
    protocol: ClassVar[str] = "http"
    options: ClassVar[tuple[str, ...]] = ("--h1",)

    def url(self, server: Ports) -> str:
        return f"{server.http}{self.path}"


def classify(photo: Path) -> Call:
    message = pb.ClassifyRequest(image=photo.read_bytes()).SerializeToString()
    return Call("anther.v1.ImageClassifier", "Classify", message)


def posted(photo: Path) -> Post:
    return Post("/v1/classify", "Classify", photo.read_bytes())


def inferred(photo: Path) -> Call:
    tensor = inference.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    request = inference.ModelInferRequest(inputs=[tensor], raw_input_contents=[_element(photo)])
    return Call("inference.GRPCInferenceService", "ModelInfer", request.SerializeToString())


def posted_tensor(photo: Path) -> Post:
    """To the model 'flowers', as Triton's clients send it: binary data behind JSON, and answered likewise."""
    data = _element(photo)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"inference-header-content-length: {len(header)}"
    return Post("/v2/models/flowers/infer", "ModelInfer", header + data, (length,))


def _element(photo: Path) -> bytes:
    data = photo.read_bytes()
    return len(data).to_bytes(4, "little") + data


def callers(server: Ports, photo: Path, count: int, seconds: int) -> Load:
    """`count` callers, each asking again as soon as it is answered, after a second of warming up."""
    return repeated(server, classify(photo), count, seconds)


def repeated(server: Ports, call: Call | Post, count: int, seconds: int) -> Load:
    """As `callers`, with any call."""
    timing = [f"--clients={count}", "--max-concurrent-streams=1", f"--duration={seconds}", "--warm-up-time=1"]
    return _run(server, call, [*timing, call.url(server)], None)


def arrivals(server: Ports, photo: Path, per_s: float, seconds: int) -> Load:
    """Requests that arrive at random moments (a Poisson process), whether or not earlier ones are answered."""
    chance = random.Random(0)
    return _scheduled(server, photo, [chance.expovariate(per_s) for _ in range(round(per_s * seconds))])


def paced(server: Ports, photo: Path, per_s: float, seconds: int) -> Load:
    """Requests at a constant rate, as wrk2, ghz and k6 send them, whether or not earlier ones are answered."""
    return _scheduled(server, photo, [1 / per_s] * round(per_s * seconds))


def _scheduled(server: Ports, photo: Path, gaps_s: list[float]) -> Load:
    """A request after each gap."""
    call, moments = classify(photo), list(itertools.accumulate(gaps_s))
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as script:
        script.writelines(f"{at * 1000:.3f}\t{call.url(server)}\n" for at in moments)
        script.flush()
        timing = ["--clients=1", "--max-concurrent-streams=1000", f"--timing-script-file={script.name}"]
        return _run(server, call, timing, len(moments) / moments[-1])


def require_h2load() -> None:
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing; install Debian's nghttp2-client")


def h2load(call: Call | Post, folder: Path, log: Path) -> list[str]:
    """The command but for its timing and address; `folder` gets the body that it posts."""
    body = folder / "body"
    body.write_bytes(call.body)
    headers = (f"--header={header}" for header in call.headers)
    return ["h2load", "--threads=1", f"--data={body}", f"--log-file={log}", *call.options, *headers]


def _run(server: Ports, call: Call | Post, options: list[str], per_s: float | None) -> Load:
    """Every request must have been answered OK, or the figures mean nothing."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        before, spent, started = answered(server, call), _children_cpu(), time.monotonic()
        command = [*h2load(call, Path(folder), log), *options]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = (_children_cpu() - spent) / (time.monotonic() - started) / usable_cores()
        lines = [line.split() for line in log.read_text().splitlines()]
    rate, done = re.search(r"([\d.]+) req/s", out), re.search(r"(\d+) done", out)
    assert rate is not None
    assert done is not None
    if answered(server, call) - before < int(done[1]):
        sys.exit(f"not every request was answered OK:\n{out}")
    latencies = sorted(int(micros) / 1000 for _, status, micros in lines if status == "200")
    return Load(per_s or float(rate[1]), latencies, cpu)


@contextmanager
def unending(server: Ports, photo: Path, count: int) -> Iterator[tuple[int, list[float]]]:
    """`count` callers without an end: h2load's process, and when answers came (Unix time), filled in at the end."""
    call = classify(photo)
    with tempfile.TemporaryDirectory() as folder:
        log, ends = Path(folder) / "log", list[float]()
        before = answered(server, call)
        timing = [f"--clients={count}", "--max-concurrent-streams=1", f"--duration={_WITHOUT_END_S}", call.url(server)]
        heeding = ["env", "--default-signal=INT"]  # by which it is ended, and which a shell's background job ignores
        process = subprocess.Popen([*heeding, *h2load(call, Path(folder), log), *timing], stdout=subprocess.DEVNULL)
        try:
            yield process.pid, ends
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
        lines = [line.split() for line in log.read_text().splitlines()]
        if answered(server, call) - before < len(lines):
            sys.exit("not every request was answered OK")
        ends.extend(sorted((int(started) + int(micros)) / 1e6 for started, _, micros in lines))


def answered(server: Ports, call: Call | Post) -> float:
    """How many of them have been answered."""
    labels = rf'code="OK",method="{call.method}".*protocol="{call.protocol}"'
    pattern = rf"anther_requests_total\{{{labels}.*\}} (\S+)"
    with urllib.request.urlopen(f"{server.ops}/metrics") as response:
        found = re.search(pattern, response.read().decode())
    return float(found[1]) if found else 0.0


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
