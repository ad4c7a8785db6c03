"""Many callers of whom some give up, under TLS and with tokens: no call is lost, hangs, or gets another's answer, and
the server counts what its callers count. `python -m tests.faults.soak --calls 100000 --protocol v1`.
"""

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.tally import Outcome, Tally
from benchmarks.vitals import Vitals
from bundle.repository import Repository
from service.engines.engine import open_on_cpu
from tests.conftest import write_bundle
from tests.faults.dialects import DIALECTS, MODEL, CallEnded, Dialect, Found, Probabilities
from tests.faults.reckoning import DESCRIPTORS, Reckoning, Stand
from tests.faults.victim import PATIENCE_S, Victim, started
from tests.secured import Secured, secure

CALLERS = 32
CANCELS = 0.01  # the share of calls that their caller gives up on
NAMES = tuple(f"caller-{number:02}" for number in range(CALLERS))
PICTURES = 16 * CALLERS
SAME, APART = 1e-5, 1e-3  # an answer is the right one, and those of two pictures are not the same


@dataclass(frozen=True)
class Picture:
    data: bytes
    answer: Probabilities


@dataclass
class Caller:
    """Asks one call after another over a connection of its own, with pictures that no other caller has."""

    name: str
    connection: Dialect
    pictures: Sequence[Picture]
    chance: random.Random
    tally: Tally
    cancels: float = CANCELS
    typical_s: float = 0.01

    def run(self, calls: int) -> None:
        for number in range(calls):
            leaves = self.chance.random() < self.cancels
            leave_s = 1.5 * self.typical_s * self.chance.random() if leaves else None
            started = time.perf_counter()
            outcome = self._outcome(self.pictures[number % len(self.pictures)], f"{self.name}-{number}", leave_s)
            took = time.perf_counter() - started
            self.typical_s = self.typical_s if leaves else took
            self.tally.add(self.name, frozenset({"OK", "CANCELLED"} if leaves else {"OK"}), [outcome], took)

    def _outcome(self, picture: Picture, request_id: str, leave_s: float | None) -> Outcome:
        try:
            return Outcome("OK", wrong(self.connection.ask(picture.data, request_id, leave_s), request_id, picture))
        except CallEnded as ended:
            return Outcome(str(ended))
        except Exception as error:  # a caller must not fall silent
            return Outcome(repr(error))


def wrong(found: Found, request_id: str, picture: Picture) -> str:
    """What is wrong with an answer; '' where nothing is."""
    if found.id != request_id:
        return f"the answer to {found.id} for {request_id}"
    same = np.allclose(found.probabilities, picture.answer, rtol=0, atol=SAME)
    return "" if same else f"{found.probabilities} and not {picture.answer}"


def draw(models: Path) -> list[Picture]:
    """Tiny pictures with their answers, which come from the model itself and are all different."""
    bundle = Repository(models).open(MODEL)
    engine, chance = open_on_cpu(bundle), random.Random(0)
    found, answers = list[Picture](), np.zeros((0, len(bundle.manifest.labels)))
    while len(found) < PICTURES:
        data = _encoded((chance.randrange(256), chance.randrange(256), chance.randrange(256)))
        pixels = bundle.manifest.preprocessing(data)
        answer = engine.run((pixels[np.newaxis],)).probabilities[0]
        if (np.abs(answers - answer).max(axis=1) > APART).all():
            found.append(Picture(data, tuple(answer.tolist())))
            answers = np.vstack([answers, answer])
    engine.close()
    return found


def _encoded(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Subject:
    """A server under TLS that asks for tokens, what its callers need, and pictures with their answers."""

    victim: Victim
    secured: Secured
    pictures: Sequence[Picture]

    def stand(self, dialect: type[Dialect]) -> Stand:
        return Stand.of(self.victim, dialect.protocol, dialect.method)


@contextlib.contextmanager
def subject(models: Path, folder: Path) -> Iterator[Subject]:
    """`folder` gets the certificates, the tokens and the log."""
    secured = secure(folder / "secrets", NAMES)
    options = (*secured.tls, *secured.known, "--http-port", "0", "--workers", "1")
    with started(models, folder / "stderr.txt", *options) as victim:
        yield Subject(victim, secured, draw(models))


def soak(subject: Subject, protocol: str, calls: int, cancels: float = CANCELS) -> Reckoning:
    """`calls` in all, divided among the callers."""
    victim, dialect, tally = subject.victim, DIALECTS[protocol], Tally()
    before, begun = subject.stand(dialect), time.perf_counter()
    connections = [dialect(victim, subject.secured.pem, subject.secured.tokens[name]) for name in NAMES]
    threads = []
    for number, (name, connection) in enumerate(zip(NAMES, connections, strict=True)):
        pictures = subject.pictures[number::CALLERS]  # a swap between two calls at once is always seen
        caller = Caller(name, connection, pictures, random.Random(number), tally, cancels)
        threads.append(threading.Thread(target=caller.run, args=(len(range(number, calls, CALLERS)),), daemon=True))
    for thread in threads:
        thread.start()
    samples = _sampled(victim, threads, pause_s=max(0.02, calls / 100_000))
    seconds = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    _until(lambda: _settled(subject.stand(dialect), before))
    return Reckoning(calls, tally, samples, before, subject.stand(dialect), seconds)


def _sampled(victim: Victim, threads: Sequence[threading.Thread], pause_s: float) -> list[Vitals]:
    """Until the last thread has ended, as it must since no call takes longer than `PATIENCE_S`."""
    samples = [victim.vitals()]
    for thread in threads:
        while thread.is_alive():
            thread.join(pause_s)
            samples.append(victim.vitals())
    return samples


def _settled(now: Stand, before: Stand) -> bool:
    return now.inflight == 0 and now.vitals.descriptors <= before.vitals.descriptors + DESCRIPTORS


def _until(holds: Callable[[], bool]) -> None:
    """For what the server is about to do; where it does not, the reckoning says so."""
    ends = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < ends:
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--protocol", choices=DIALECTS, action="append", help="May be given again; all by default.")
    arguments = parser.parse_args()
    failed = False
    for protocol in arguments.protocol or DIALECTS:
        with tempfile.TemporaryDirectory() as name:
            version = Path(name) / "models" / MODEL / "1"
            version.mkdir(parents=True)
            write_bundle(version, name=MODEL)
            with subject(Path(name) / "models", Path(name)) as found:
                reckoning = soak(found, protocol, arguments.calls)
                found.victim.prove_log()
        reasons = reckoning.reasons()
        failed |= bool(reasons)
        result = {"protocol": protocol, **reckoning.figures(), "reasons": reasons}
        print(json.dumps(result), flush=True)  # noqa: T201 - the command's result
    sys.exit(failed)


if __name__ == "__main__":
    main()
