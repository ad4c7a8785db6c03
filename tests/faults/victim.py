"""A server process as seen from outside: what it answers, counts and logs, and what it holds of the machine."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from benchmarks.vitals import Vitals, read_vitals

PATIENCE_S = 60  # how long a test waits for what must happen, however busy the machine
CLASSIFY = "/anther.v1.ImageClassifier/Classify"
_RESET_PEAK = "5"  # proc(5), clear_refs
BANNER = re.compile(r"(?:HTTP (https?://\S+), )?gRPC (\S+), operations (http://\S+),")


class Asking:
    """Threads that ask until the block ends; `ends` counts by status. `ask` goes on until `stop` is set."""

    def __init__(self, callers: int) -> None:
        self.ends: Counter[str] = Counter()
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=self.ask) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def ask(self) -> None:
        raise NotImplementedError


@dataclass
class Victim:
    process: "subprocess.Popen[str]"
    target: str
    operations: str
    errors: Path
    http: str = ""  # the URL of the HTTP port, where there is one
    proven: int = 0  # how much of the log was found to be without errors

    @property
    def port(self) -> int:
        return int(self.target.rpartition(":")[2])

    def channel(self) -> grpc.Channel:
        """A connection of its own, to any size of picture."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        return grpc.insecure_channel(self.target, options)

    def prove(self, pictures: dict[str, bytes]) -> None:
        """It lives, gives each picture its label, and has logged no error since the last time."""
        assert self.process.poll() is None
        with self.channel() as channel:
            self.prove_over(channel, pictures)
        self.prove_log()

    def prove_over(self, channel: grpc.Channel, pictures: dict[str, bytes]) -> None:
        stub = ImageClassifierStub(channel)
        for label, picture in pictures.items():
            answer = stub.Classify(pb.ClassifyRequest(image=picture), timeout=PATIENCE_S)
            assert answer.predictions[0].label == label

    def prove_log(self) -> None:
        log = self.errors.read_text()
        new, self.proven = log[self.proven :], len(log)
        errors = re.findall(r"^(?:Traceback|\S+ (?:ERROR|CRITICAL) ).*", new, re.MULTILINE)
        assert not errors, errors[:3]

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels."""
        return sum(item.value for item in self.samples() if item.name == name and labels.items() <= item.labels.items())

    def samples(self) -> list[Sample]:
        """All that its page of metrics has."""
        with urllib.request.urlopen(f"{self.operations}/metrics", timeout=PATIENCE_S) as page:
            families = text_string_to_metric_families(page.read().decode())
            return [sample for family in families for sample in family.samples]

    def vitals(self) -> Vitals:
        return read_vitals(self.process.pid)

    def forget_peak(self) -> None:
        """From here on `peak` is the most since now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text(_RESET_PEAK)

    def peak(self) -> int:
        """The most resident memory, in bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Exit code after the signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def started(models: Path, errors: Path, *options: str) -> Iterator[Victim]:
    """`anther serve` on free ports, ready to answer; its log goes to the file `errors`."""
    command = [sys.executable, "-m", "anther", "serve", "--models", str(models)]
    fixed = ["--grpc-port", "0", "--ops-port", "0", "--grace-s", "60"]
    with (
        errors.open("w") as file,
        subprocess.Popen([*command, *fixed, *options], stdout=subprocess.PIPE, stderr=file, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            found = BANNER.search(process.stdout.readline())
            assert found, errors.read_text()
            yield Victim(process, found[2], found[3], errors, found[1] or "")
        finally:
            process.kill()
