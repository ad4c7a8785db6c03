"""Attacks on the ports at full size: `python -m tests.faults.attack NAME` starts a server and prints what it bore.

`--checkout FOLDER` attacks the server of another checkout. `tests/faults/test_attacks.py` runs them small, with bounds.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from anther.open_inference import open_inference_pb2
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.faults import flood, web
from tests.faults.victim import BANNER, CLASSIFY, PATIENCE_S, Asking, Victim

MEGABYTE = 2**20
Figures = dict[str, Any]


class Honest(Asking):
    """Callers with a connection each who ask one call after another over gRPC."""

    def __init__(self, victim: Victim, picture: bytes, callers: int = 2, timeout_s: float = 30.0) -> None:
        super().__init__(callers)
        self.seconds: list[float] = []
        self._victim, self._request, self._timeout_s = victim, pb.ClassifyRequest(image=picture), timeout_s

    def figures(self) -> Figures:
        return {"honest": dict(self.ends), "honest_slowest_s": round(max(self.seconds, default=0.0), 3)}

    def ask(self) -> None:
        with self._victim.channel() as channel:
            stub = ImageClassifierStub(channel)
            while not self.stop.is_set():
                started = time.monotonic()
                self.ends[end_of(lambda: stub.Classify(self._request, timeout=self._timeout_s))] += 1
                self.seconds.append(time.monotonic() - started)


def end_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def reason_of(call: Any) -> str:
    """Status, and whether the answer says when to come back."""
    code = call.code()
    if code is grpc.StatusCode.OK:
        return "OK"
    details = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return f"{code.name}{' with a retry hint' if b'RetryInfo' in details else ''}"


def burst(victim: Victim, picture: bytes, calls: int = 4000, connections: int = 1) -> Figures:
    """Honest calls, all begun at once."""
    request = pb.ClassifyRequest(image=picture)
    with contextlib.ExitStack() as stack:
        stubs = [ImageClassifierStub(stack.enter_context(victim.channel())) for _ in range(connections)]
        for stub in stubs:
            stub.ListModels(pb.ListModelsRequest(), timeout=PATIENCE_S)
        begun = [stub.Classify.future(request) for stub in itertools.islice(itertools.cycle(stubs), calls)]
        return {"ends": dict(Counter(reason_of(call) for call in begun)), **memory(victim)}


def resets(victim: Victim, picture: bytes, streams: int = 300_000) -> Figures:
    """One connection that opens streams and resets them at once."""
    with Honest(victim, picture) as honest, flood.connected(victim.port) as connection:
        _drain(connection)
        sent = _pour(connection, (flood.opened(n) + flood.reset(n) for n in range(1, 2 * streams, 2)))
    return {"streams": sent, **honest.figures(), **memory(victim)}


def streams(victim: Victim, picture: bytes, streams: int = 100_000) -> Figures:
    """One connection that opens streams and says nothing on them."""
    with Honest(victim, picture) as honest, flood.connected(victim.port) as connection:
        _drain(connection)
        sent = _pour(connection, (flood.opened(n) for n in range(1, 2 * streams, 2)))
        time.sleep(min(2.0, streams / 1000))
        at_work = victim.sample("anther_inflight_requests")
    return {"streams": sent, "in_flight": at_work, **honest.figures(), **memory(victim)}


def uploads(
    victim: Victim, picture: bytes, count: int = 150, size: int = 19_000_000, stay_s: float = 45.0, path: str = CLASSIFY
) -> Figures:
    """Connections that send a message of `size` bytes save for its last one, and stay."""
    before, _ = victim.vitals().memory, victim.forget_peak()
    with Honest(victim, picture) as honest:
        begun = flood.uploads(victim.port, count, size, size - 1, path)
        flood.push(begun, seconds=60, quiet_s=2.0)
        accepted = sum(size - 1 - len(upload.unsent) for upload in begun)
        flood.push(begun, seconds=stay_s, quiet_s=stay_s)
    figures = {"taken": accepted // MEGABYTE, "ended_by_server": sum(upload.ended for upload in begun)}
    peak, held = victim.peak(), victim.vitals().memory
    for upload in begun:
        upload.connection.close()
    time.sleep(stay_s)
    left = victim.vitals().memory
    memories = {"peak": peak - before, "held": held - before, "after_close": left - before}
    return {**figures, **{name: value // MEGABYTE for name, value in memories.items()}, **honest.figures()}


def windows(victim: Victim, picture: bytes, connections: int = 200, streams: int = 100) -> Figures:
    """Connections that fill the window of every stream that they may open with the start of a large message."""
    before, _ = victim.vitals().memory, victim.forget_peak()
    body = b"\0" + struct.pack(">I", 19_000_000) + bytes(2 * MEGABYTE)
    with Honest(victim, picture) as honest, contextlib.ExitStack() as stack:
        begun = flood.uploads(victim.port, connections, 19_000_000, 2 * MEGABYTE)
        for upload in begun:
            stack.enter_context(upload.connection)
        flood.push(begun, seconds=1, quiet_s=0.1)
        for _ in range(1, streams):
            for upload in begun:
                upload.begin_another(body)
            flood.push(begun, seconds=1, quiet_s=0.05)
        peak = victim.peak()
    return {"peak": (peak - before) // MEGABYTE, **honest.figures()}


def pings(victim: Victim, picture: bytes, seconds: float = 10.0, connections: int = 2) -> Figures:
    """Connections that send pings without pause and read no answer."""
    stop = threading.Event()

    def flooding() -> None:
        block = flood.PINGED * 1000
        while not stop.is_set():
            with contextlib.suppress(OSError), flood.connected(victim.port, timeout=0.5) as connection:
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        connection.sendall(block)

    threads = [threading.Thread(target=flooding) for _ in range(connections)]
    with Honest(victim, picture, timeout_s=60.0) as honest:
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in threads:
            thread.join()
    return {**honest.figures(), **memory(victim)}


def idle(victim: Victim, picture: bytes, connections: int = 2000, stay_s: float = 60.0) -> Figures:
    """Connections with good manners and no calls; every other one says nothing at all."""
    before = victim.vitals().descriptors
    with contextlib.ExitStack() as stack, Honest(victim, picture) as honest:
        begun = [
            flood.connected(victim.port, opening=(flood.OPENING, b"")[number % 2]) for number in range(connections)
        ]
        for connection in begun:
            stack.enter_context(contextlib.closing(connection))
        most = victim.vitals().descriptors - before
        open_after = flood.answer_politely(begun, stay_s)
    return {"most_open": most, "open_after": open_after, **honest.figures(), **memory(victim)}


def identifier(victim: Victim, picture: bytes, size: int = 14_000_000) -> Figures:
    """A request's id that is longer than its picture."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(victim.target, options) as channel:
        call = ImageClassifierStub(channel).Classify.future(pb.ClassifyRequest(image=picture, id="x" * size))
        echoed = len(call.result().id) if call.code() is grpc.StatusCode.OK else 0
        return {"end": reason_of(call), "echoed": echoed, "message": (call.details() or "")[:200]}


def unloaded(victim: Victim, picture: bytes) -> Figures:
    """What a caller reads when no model is left; the server runs with `--control`."""
    with victim.channel() as channel:
        control, stub = GRPCInferenceServiceStub(channel), ImageClassifierStub(channel)
        for live in stub.ListModels(pb.ListModelsRequest()).models:
            control.RepositoryModelUnload(open_inference_pb2.RepositoryModelUnloadRequest(model_name=live.name))
        call = stub.Classify.future(pb.ClassifyRequest(image=picture))
        return {"end": call.code().name, "message": call.details(), "facts": str(call.trailing_metadata())}


def descriptors(victim: Victim, picture: bytes, connections: int = 100, seconds: float = 4.0) -> Figures:
    """More connections than the process has file descriptors for; the server runs under `ulimit -n 64`."""
    before = victim.vitals()
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(contextlib.closing(flood.connected(victim.port)))
        for _ in range(5):
            operations = int(victim.operations.rpartition(":")[2])
            stack.enter_context(contextlib.closing(flood.connected(operations, opening=b"")))
        time.sleep(seconds)
        after = victim.vitals()
        scraped = victim.sample("anther_model_ready")
    with victim.channel() as channel:
        end = end_of(lambda: ImageClassifierStub(channel).Classify(pb.ClassifyRequest(image=picture), timeout=30))
    cores = (after.cpu_s - before.cpu_s) / seconds
    return {"open": after.descriptors, "cores_used": round(cores, 2), "scraped": scraped, "afterwards": end}


def memory(victim: Victim) -> Figures:
    return {"memory": victim.vitals().memory // MEGABYTE, "peak": victim.peak() // MEGABYTE}


def _pour(connection: Any, frames: Iterator[bytes], at_once: int = 200) -> int:
    """The number of frames that went out before the server closed."""
    sent = 0
    with contextlib.suppress(OSError):
        while block := list(itertools.islice(frames, at_once)):
            connection.sendall(b"".join(block))
            sent += len(block)
    return sent


def _drain(connection: Any) -> None:
    """Read what the server says, on a thread, until the connection ends."""

    def read() -> None:
        with contextlib.suppress(OSError, ValueError):
            while connection.recv(65_536):
                pass

    threading.Thread(target=read, daemon=True).start()


ATTACKS: dict[str, Callable[..., Figures]] = {
    attack.__name__: attack
    for attack in (
        burst,
        resets,
        streams,
        uploads,
        windows,
        pings,
        idle,
        identifier,
        unloaded,
        descriptors,
        web.dripping,
        web.postings,
        web.silent,
    )
}
OPTIONS = {"unloaded": ["--control"]}
DESCRIPTORS = {"descriptors": 64}


@contextlib.contextmanager
def attacked(checkout: Path, options: list[str], limit: int | None = None) -> Iterator[Victim]:
    """`anther serve` of a checkout, with at most `limit` file descriptors."""

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as errors, tempfile.TemporaryDirectory() as models:
        shutil.copytree(checkout / "models", models, dirs_exist_ok=True)
        shell = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"] if limit else []
        command = [*shell, sys.executable, "-m", "anther", "serve", "--workers", "1", "--models", models]
        process = subprocess.Popen(
            [*command, "--grpc-port", "0", "--ops-port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "ANTHER_HTTP_PORT": "0"},
        )
        try:
            assert process.stdout is not None
            found = BANNER.search(process.stdout.readline())
            assert found, Path(errors.name).read_text()
            yield Victim(process, found[2], found[3], Path(errors.name), found[1] or "")
        finally:
            process.kill()
            process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--checkout", type=Path, default=Path.cwd())
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("SIZE", "VALUE"))
    parser.add_argument("options", nargs="*", help="after --: options of `anther serve`")
    given = parser.parse_args()
    sizes = {name: json.loads(value) for name, value in given.set}
    picture = (Path("examples") / "daisy.jpg").read_bytes()
    options = [*OPTIONS.get(given.name, []), *given.options]
    with attacked(given.checkout.resolve(), options, DESCRIPTORS.get(given.name)) as victim:
        victim.forget_peak()
        figures = ATTACKS[given.name](victim, picture, **sizes)
    sys.stdout.write(json.dumps({"attack": given.name, **sizes, **figures}) + "\n")


if __name__ == "__main__":
    main()
