"""The server under load beside the ceiling, in one run: `python -m benchmarks.server [--photo FILE] [--rounds 3]`.

The load comes from h2load (Debian's nghttp2-client), which posts a prebuilt gRPC frame and takes 2–3 % of two cores; a
Python load generator would measure itself. A real client checks first that the answer is right. Prints one JSON line.
"""

import json
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import click

from benchmarks.ceiling import measure
from benchmarks.subject import Server, photo_option, serving
from service.cores import usable_cores
from service.rpc.pb.anther.v1 import classifier_pb2 as pb

_PORT = 18001
_METHOD = "anther.v1.ImageClassifier/Classify"


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--expect", default=None, help="Label that the picture must get; by default the file's name.")
@click.option("--callers", default="1,8,32", show_default=True, help="Closed-loop callers, one at a time.")
@click.option("--seconds", default=5, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=3, show_default=True, help="Ceiling and server in turn; medians are printed.")
def main(models: Path, model: str, photo: Path, expect: str | None, callers: str, seconds: int, rounds: int) -> None:
    """Throughput, latency, start-up time and memory of the server, as shares of the ceiling where that makes sense."""
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing; install Debian's nghttp2-client")
    counts = [int(count) for count in callers.split(",")]
    results = []
    for _ in range(rounds):
        ceiling = measure(models, model, photo, seconds)
        with serving(models.resolve(), photo, _PORT) as server:
            found = server.answer.predictions[0].label
            if found != (expect or photo.stem):
                sys.exit(f"{photo} was answered '{found}', expected '{expect or photo.stem}'")
            loads = {count: _load(server, photo, count, seconds) for count in counts}
            results.append((ceiling, loads, server.first_answer_s, server.memory_mb()))
    print(json.dumps(_summary(results, counts, photo)))


Load = tuple[float, list[float]]  # answers a second; latencies in ms, sorted
Round = tuple[float, dict[int, Load], float, float]


def _load(server: Server, photo: Path, callers: int, seconds: int) -> Load:
    request = pb.ClassifyRequest(image=photo.read_bytes()).SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        frame, log = Path(folder) / "frame", Path(folder) / "log"
        frame.write_bytes(b"\0" + struct.pack(">I", len(request)) + request)
        command = [
            "h2load", f"--clients={callers}", "--max-concurrent-streams=1", "--threads=1", f"--duration={seconds}",
            "--warm-up-time=1", f"--data={frame}", f"--log-file={log}", "--header=content-type: application/grpc",
            "--header=te: trailers", f"http://{server.target}/{_METHOD}",
        ]  # fmt: skip
        before = _answered(server)
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line.split() for line in log.read_text().splitlines()]
    rate = re.search(r"([\d.]+) req/s", out)
    done = re.search(r"(\d+) done", out)
    assert rate is not None
    assert done is not None
    if _answered(server) - before < int(done[1]):
        sys.exit(f"not every request was answered OK:\n{out}")
    return float(rate[1]), sorted(int(micros) / 1000 for _, status, micros in lines if status == "200")


def _answered(server: Server) -> float:
    with urllib.request.urlopen(f"{server.ops}/metrics") as response:
        found = re.search(r'anther_requests_total\{code="OK",method="Classify".*\} (\S+)', response.read().decode())
    return float(found[1]) if found else 0.0


def _summary(rounds: list[Round], counts: list[int], photo: Path) -> dict[str, object]:
    median = statistics.median
    return {
        "photo": photo.name,
        "cores": usable_cores(),
        "ceiling_per_s": round(median(ceiling for ceiling, *_ in rounds), 1),
        "callers": {
            str(count): {
                "per_s": round(median(loads[count][0] for _, loads, *_ in rounds), 1),
                "of_ceiling": round(median(loads[count][0] / ceiling for ceiling, loads, *_ in rounds), 3),
                "p50_ms": round(median(_quantile(loads[count][1], 0.5) for _, loads, *_ in rounds), 1),
                "p99_ms": round(median(_quantile(loads[count][1], 0.99) for _, loads, *_ in rounds), 1),
            }
            for count in counts
        },
        "first_answer_s": round(median(first for *_, first, _ in rounds), 2),
        "memory_mb": round(median(memory for *_, memory in rounds), 1),
    }


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
