"""The server under the standard protocol's own load generator: `python -m benchmarks.perf_analyzer [--photo FILE]`.

Triton's perf_analyzer is asked for with `pip install perf-analyzer` (2.60, in an environment of its own). Its program
needs glibc 2.38, as in Debian 13 or Ubuntu 24.04; on older systems pip finds an empty package of the same name instead.
Its load takes CPU from the server on the same machine, so compare its figures with each other. Prints one JSON line.
"""

import base64
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.subject import photo_option, serving
from service.system.cores import usable_cores

_PORT, _HTTP_PORT = 18005, 18006
_LIMIT_S = 600


@click.command()
@click.option("--models", default=Path("models"), type=click.Path(path_type=Path), show_default=True)
@click.option("--model", default="flowers", show_default=True)
@photo_option
@click.option("--callers", default="1,8,32", show_default=True, help="Requests at once, one setting after another.")
@click.option("--batch", default=1, show_default=True, help="Pictures in a request.")
@click.option("--protocol", default="grpc", type=click.Choice(["grpc", "http"]), show_default=True)
@click.option("--streaming", is_flag=True, help="Over ModelStreamInfer, which gRPC alone has.")
@click.option("--requests", default=500, show_default=True, help="Requests in each measurement; three must agree.")
@click.option("--program", default="perf_analyzer", show_default=True, help="Its name on the path, or where it lies.")
def main(
    models: Path,
    model: str,
    photo: Path,
    callers: str,
    batch: int,
    protocol: str,
    streaming: bool,
    requests: int,
    program: str,
) -> None:
    """Throughput and latency that perf_analyzer measures over the Open Inference Protocol."""
    found = shutil.which(program)
    if found is None:
        sys.exit(f"'{program}' is not on the path; `pip install perf-analyzer` brings it (glibc 2.38 or newer)")
    options = ["-b", str(batch), "--measurement-request-count", str(requests)]
    options += ["--streaming", "-a"] if streaming else []
    with serving(models.resolve(), photo, _PORT, ("--http-port", str(_HTTP_PORT))) as server:
        target = server.target if protocol == "grpc" else f"127.0.0.1:{_HTTP_PORT}"
        command = [found, "-m", model, "-i", protocol, "-u", target, *options]
        results = {count: _measured(command, photo, count) for count in callers.split(",")}
    print(
        json.dumps(
            {
                "photo": photo.name,
                "cores": usable_cores(),
                "protocol": protocol,
                "batch": batch,
                "streaming": streaming,
                **results,
            }
        )
    )


def _measured(command: list[str], photo: Path, callers: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        data.write_text(_input(photo.read_bytes()))
        arguments = ["--input-data", str(data), "--concurrency-range", callers, "--measurement-mode", "count_windows"]
        done = subprocess.run(
            [*command, *arguments, "-s", "10", "-f", str(report)],
            timeout=_LIMIT_S,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"perf_analyzer ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        with report.open(newline="") as file:
            return _figures(next(csv.DictReader(file)))


def _input(picture: bytes) -> str:
    """One step with one picture. In base64 an element of BYTES keeps its length before it, as on the wire."""
    element = len(picture).to_bytes(4, "little") + picture
    return json.dumps({"data": [{"image": {"b64": base64.b64encode(element).decode()}}]})


def _figures(row: dict[str, str]) -> dict[str, float]:
    return {
        "per_s": round(float(row["Inferences/Second"]), 1),
        "p50_ms": round(float(row["p50 latency"]) / 1000, 1),
        "p99_ms": round(float(row["p99 latency"]) / 1000, 1),
    }


if __name__ == "__main__":
    main()
