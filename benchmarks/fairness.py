"""One normal caller, quiet and beside hostile ones: `python -m benchmarks.fairness [--photo FILE] [--attack large …]`.

Each caller has an address of its own (127.0.0.2 and so on), which gRPC's Python client cannot bind; so the calls are
HTTP/2 frames of our own. Quiet and attacked times take turns. Prints one JSON line.
"""

import io
import json
import multiprocessing
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import click
import h2.config
import h2.connection
import h2.events
import numpy as np
from PIL import Image

from anther.v1 import classifier_pb2 as pb
from benchmarks import load
from benchmarks.subject import ROOT, options_option, photo_option, serving

_PORT = 18011
_NORMAL = "127.0.0.2"
_PER_S = 5.0
_WAIT_S = 0.01  # of a hostile caller who was refused; one who heeds the server's hint would be no attack


class Connection:
    """One connection from an address of its own, for one call after the other."""

    def __init__(self, target: str, source: str, call: load.Call) -> None:
        host, port = target.split(":")
        self._socket = socket.create_connection((host, int(port)), source_address=(source, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self._frame = b"\0" + struct.pack(">I", len(call.message)) + call.message
        path = f"/{call.service}/{call.method}"
        usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": target, "te": "trailers"}
        self._headers = [*usual.items(), ("content-type", "application/grpc")]

    def ask(self) -> str:
        """The number of the gRPC status: '0' is OK."""
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(stream, self._headers)
        sent, status = 0, ""
        while not status:
            while sent < len(self._frame) and (room := self._room(stream)) > 0:
                part = self._frame[sent : sent + room]
                sent += len(part)
                self._http.send_data(stream, part, end_stream=sent == len(self._frame))
            self._socket.sendall(self._http.data_to_send())
            status = self._received(stream)
        return status

    def close(self) -> None:
        self._socket.close()

    def _room(self, stream: int) -> int:
        return min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)

    def _received(self, stream: int) -> str:
        """The status where it came; anything else makes the caller look again."""
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection")
        for event in self._http.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.StreamReset):
                return "reset"
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers = {str(key): str(value) for key, value in event.headers}
                if event.stream_id == stream and "grpc-status" in headers:
                    self._socket.sendall(self._http.data_to_send())
                    return headers["grpc-status"]
        return ""


@dataclass
class Seen:
    """By the normal caller: latencies in ms, and how many calls did not end as OK."""

    latencies: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile(self, share: float) -> float:
        return round(sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))], 1)

    def speed(self) -> dict[str, float]:
        return {"p50_ms": self.quantile(0.5), "p99_ms": self.quantile(0.99)}


def normal(target: str, call: load.Call, count: int, seen: Seen) -> None:
    """`count` calls at random moments, `_PER_S` a second: one that asks without pause takes a whole share."""
    connection, chance = Connection(target, _NORMAL, call), random.Random(0)
    for _ in range(count):
        time.sleep(chance.expovariate(_PER_S))
        began = time.perf_counter()
        seen.failed += connection.ask() != "0"
        seen.latencies.append(1000 * (time.perf_counter() - began))
    connection.close()


@contextmanager
def hostile(target: str, call: load.Call, count: int) -> Iterator[None]:
    """`count` more callers, who ask without pause from a process of their own."""
    context = multiprocessing.get_context("spawn")
    stop, begun = context.Event(), context.Event()
    process = context.Process(target=_ask_all, args=(target, call, count, stop, begun))
    process.start()
    begun.wait()
    try:
        yield
    finally:
        stop.set()
        process.join()


def _ask_all(target: str, call: load.Call, count: int, stop: Event, begun: Event) -> None:
    sources = [f"127.0.0.{3 + index}" for index in range(count)]
    threads = [threading.Thread(target=_ask, args=(Connection(target, each, call), stop)) for each in sources]
    for thread in threads:
        thread.start()
    begun.set()


def _ask(connection: Connection, stop: Event) -> None:
    while not stop.is_set():
        if connection.ask() != "0":
            time.sleep(_WAIT_S)
    connection.close()


def attacks(photo: Path) -> dict[str, load.Call]:
    """What hostile callers send: much to decode, just not enough to be slow, or as others do."""
    pictures = {"large": _encoded(_flat(5000), "PNG"), "medium": _encoded(_noise(1100), "JPEG", quality=30)}
    return {name: _call(picture) for name, picture in pictures.items()} | {"flood": load.classify(photo)}


def _call(picture: bytes) -> load.Call:
    message = pb.ClassifyRequest(image=picture).SerializeToString()
    return load.Call("anther.v1.ImageClassifier", "Classify", message)


def _flat(side: int) -> Image.Image:
    return Image.new("RGB", (side, side), "green")


def _noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@click.command()
@photo_option
@click.option("--attack", "names", multiple=True, type=click.Choice(["large", "medium", "flood"]), help="Else all.")
@click.option("--callers", default=8, show_default=True, help="Hostile ones.")
@click.option("--calls", default=100, show_default=True, help="Of the normal caller in each measurement.")
@click.option("--rounds", default=3, show_default=True, help="Quiet and attacked in turn.")
@options_option
def main(photo: Path, names: tuple[str, ...], callers: int, calls: int, rounds: int, options: tuple[str, ...]) -> None:
    """Latency of one normal caller, quiet and beside hostile ones."""
    call, every = load.classify(photo), attacks(photo)
    with serving(ROOT / "models", photo, _PORT, options) as server:
        normal(server.target, call, 10, Seen())  # warming up
        for name in names or every:
            quiet, beside = Seen(), Seen()
            for _ in range(rounds):
                normal(server.target, call, calls, quiet)
                with hostile(server.target, every[name], callers):
                    normal(server.target, call, calls, beside)
            ratio = round(beside.quantile(0.99) / quiet.quantile(0.99), 2)
            found = {"quiet": quiet.speed(), "beside": beside.speed(), "p99_beside_of_quiet": ratio}
            print(json.dumps({"attack": name, **found, "failed": quiet.failed + beside.failed}), flush=True)


if __name__ == "__main__":
    main()
