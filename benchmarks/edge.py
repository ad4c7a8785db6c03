"""What a call costs at the edge: `python -m benchmarks.edge [--rounds 5]`, in about five minutes.

Servers that differ in one thing answer the same file in turns, and the CPU time of the server's process is divided by
the calls. The file is 64 KB, of which nearly all is a comment, and the model is that of the tests, so that decoding and
inference are small beside what is measured. Prints a table in Markdown.
"""

import contextlib
import io
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

import click
from PIL import Image

from benchmarks import load
from benchmarks.http import take_turn, taken
from benchmarks.load import Call, Post
from benchmarks.subject import PHOTO, ROOT, Ports, serving
from tests.conftest import write_bundle
from tests.faults.victim import started
from tests.secured import Secured, secure

_PORT = 18007
_NAME = "flowers"
_COMMENT_BYTES = 64_000
_CALLERS = 8
_BASE = "gRPC"


@dataclass(frozen=True)
class Way:
    """One way to call one server."""

    title: str
    server: str
    call: Callable[[Path], Call | Post] = load.classify


WAYS = (
    Way(_BASE, "plain"),
    Way("gRPC, tokens", "tokens"),
    Way("gRPC, TLS", "tls"),
    Way("gRPC, TLS and tokens", "both"),
    Way("HTTP /v1", "plain", load.posted),
    Way("HTTP /v1, TLS", "tls", load.posted),
    Way("HTTP /v1, TLS and tokens", "both", load.posted),
    Way("gRPC, ModelInfer", "plain", load.inferred),
    Way("HTTP /v2, binary data", "plain", load.posted_tensor),
    Way("gRPC, tracing, share 0", "traced 0"),
    Way("gRPC, tracing, share 0.05", "traced 0.05"),
    Way("gRPC, tracing, share 1", "traced 1"),
)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Turns of each way; medians are printed.")
@click.option("--seconds", default=2, show_default=True, help="Length of a turn, after one of warming up.")
def main(rounds: int, seconds: int) -> None:
    """CPU time a call: tokens, TLS, HTTP, tracing; and the throughput of HTTP beside gRPC's."""
    load.require_h2load()
    with tempfile.TemporaryDirectory() as name, _collector() as collector:
        folder = Path(name)
        secured = secure(folder, ["benchmark"])
        with _servers(folder, secured, collector) as servers:
            photo = _photo(folder)
            cpu = [_round(servers, _calls(photo, secured), seconds, number) for number in range(rounds)]
    with serving(ROOT / "models", PHOTO, _PORT) as server:
        shares = [each["http"].per_s / each["grpc"].per_s for each in taken(server, PHOTO, _CALLERS, seconds, rounds)]
    click.echo(_table(cpu))
    click.echo(f"\nHTTP's calls a second with the embedded model, {_CALLERS} callers, of gRPC's: {_spread(shares)}")


def _photo(folder: Path) -> Path:
    """A small JPEG with a large comment (ITU-T T.81, B.2.4.5)."""
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), (255, 0, 0)).save(buffer, "JPEG")
    plain, comment = buffer.getvalue(), bytes(_COMMENT_BYTES)
    path = folder / "photo.jpg"
    path.write_bytes(plain[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + plain[2:])
    return path


def _calls(photo: Path, secured: Secured) -> dict[str, Call | Post]:
    """By the title of the way. Where no token is asked for, none is sent."""
    token = (f"authorization: Bearer {secured.tokens['benchmark']}",)
    found: dict[str, Call | Post] = {}
    for way in WAYS:
        plain = way.call(photo)
        headers = plain.headers + (token if way.server in ("tokens", "both") else ())
        found[way.title] = type(plain)(**{**vars(plain), "headers": headers})
    return found


@contextlib.contextmanager
def _servers(folder: Path, secured: Secured, collector: str) -> Iterator[dict[str, Ports]]:
    """All at once, so that each round has a turn of each."""
    version = folder / "models" / _NAME / "1"
    version.mkdir(parents=True)
    write_bundle(version, name=_NAME)
    traced = {f"traced {share}": ("--otlp-endpoint", collector, "--trace-share", share) for share in ("0", "0.05", "1")}
    options = {
        "plain": (), "tokens": secured.known, "tls": secured.tls, "both": (*secured.tls, *secured.known), **traced
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        found = {}
        for name, own in options.items():
            all_options = ("--http-port", "0", "--workers", "1", *own)
            victim = stack.enter_context(started(folder / "models", folder / "stderr.txt", *all_options))
            found[name] = Ports(victim.process, victim.target, victim.http, victim.operations)
        yield found


def _round(servers: dict[str, Ports], calls: dict[str, Call | Post], seconds: int, number: int) -> dict[str, float]:
    """CPU time a call in ms, by the title of the way. Plain gRPC has a turn before the others and one after."""
    ways = WAYS[1:] if number % 2 else WAYS[:0:-1]

    def cpu_ms(way: Way) -> float:
        return take_turn(servers[way.server], calls[way.title], _CALLERS, seconds).cpu_ms

    first = cpu_ms(WAYS[0])
    found = {way.title: cpu_ms(way) for way in ways}
    return {_BASE: (first + cpu_ms(WAYS[0])) / 2, **found}


def _table(rounds: Sequence[dict[str, float]]) -> str:
    lines = [
        "| way | CPU time a call, ms | more than gRPC, ms | of gRPC (median, least to most) |",
        "|---|---|---|---|",
    ]
    for way in WAYS:
        cpu = [found[way.title] for found in rounds]
        more = statistics.median(found[way.title] - found[_BASE] for found in rounds)
        shares = [found[way.title] / found[_BASE] for found in rounds]
        lines.append(f"| {way.title} | {statistics.median(cpu):.3f} | {more:+.3f} | {_spread(shares)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """The URL of a process that takes spans and throws them away."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_collect, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def _collect(told: "Connection[int, None]") -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Export) as server:
        told.send(server.server_address[1])
        server.serve_forever()


class _Export(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Requests are not printed."""


if __name__ == "__main__":
    main()
