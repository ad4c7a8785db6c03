"""A process of its own for what nobody waits for: it computes only where no other wants the processor.

A thread would not do. While other processes fill the cores, a thread of low priority that has just taken the
interpreter lock may wait long for the processor, and everybody else for the lock: with two busy neighbours on two cores
others stood still for up to 600 ms behind an idle thread, for 85 ms behind one of niceness 10, and for 30 ms behind one
like themselves.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from anther.backoff import Backoff
from bundle.preprocessing import Limits, Pixels
from bundle.repository import Bundle
from service.config import PrecisionChoice
from service.system import priority

FAILED = b"-"
"""An answer begins with this and goes on with the reason, or it is the probabilities, float32 [C]."""
COMPUTED = b"+"


class ShadowWorkerFailed(Exception):
    """No answer; a sentence says why."""


def question(bundle: Bundle, picture: bytes | Pixels) -> dict[str, object]:
    """Which model is to compute, and the shape of what follows, None where it is encoded.

    A number may have been published anew: then folder and number are not enough.
    """
    shape = None if isinstance(picture, bytes) else picture.shape
    return {"folder": str(bundle.path), "version": bundle.version, "identity": identity(bundle), "shape": shape}


def identity(bundle: Bundle) -> str:
    """The same for the same labels and files, a SHA-256 in hexadecimal."""
    return hashlib.sha256(json.dumps([bundle.manifest.labels, dict(bundle.manifest.files)]).encode()).hexdigest()


class ShadowWorker:
    """Started with the first picture. For one thread, save `close`."""

    def __init__(
        self, limits: Limits, step_back: Callable[[int], object] = priority.idle, precision: PrecisionChoice = "fp32"
    ) -> None:
        self._limits = limits
        self._precision = precision
        self._step_back = step_back
        self._lock = threading.Lock()  # between starting and closing
        self._closed = False
        self._running: _Running | None = None
        self._backoff = Backoff()
        self._not_before = 0.0

    def compute(self, bundle: Bundle, picture: bytes | Pixels) -> npt.NDArray[np.float32]:
        """The probabilities [C] that a version on the disk gives an encoded picture, or pixels uint8 [H, W, 3]; however
        long it takes.

        Raises `ShadowWorkerFailed`.
        """
        running = self._running or self._start()
        try:
            answer = running.ask(question(bundle, picture), picture)
        except (EOFError, OSError) as exc:
            self.rest()
            self._not_before = time.monotonic() + self._backoff.after_run(running.age_s())
            raise ShadowWorkerFailed("its process ended") from exc
        if answer[:1] == FAILED:
            raise ShadowWorkerFailed(answer[1:].decode())
        return np.frombuffer(answer[1:], np.float32)

    def rest(self) -> None:
        """Give all that it holds back; the next picture starts another process."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def close(self) -> None:
        """From any thread: whoever waits for an answer is told that there is none, and nothing is started any more."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                self._running.process.kill()

    def _start(self) -> "_Running":
        if (wait_s := self._not_before - time.monotonic()) > 0:
            raise ShadowWorkerFailed(f"its process failed; another one starts in {wait_s:.1f} s")
        with self._lock:
            if self._closed:
                raise ShadowWorkerFailed("the server is shutting down")
            try:
                self._running = _Running.start(self._limits, self._precision)
            except OSError as exc:
                self._not_before = time.monotonic() + self._backoff.next_s()
                raise ShadowWorkerFailed(f"the system gives no process ({exc.strerror})") from exc
        self._step_back(self._running.process.pid)
        return self._running


@dataclass(frozen=True, slots=True)
class _Running:
    """A process and this end of the connection to it."""

    process: "subprocess.Popen[bytes]"
    connection: Connection
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, limits: Limits, precision: PrecisionChoice) -> "_Running":
        """Raises `OSError`."""
        connection, end = Pipe()
        command = [sys.executable, "-P", "-m", "anther.program", "service.core.shadow_process"]
        arguments = [end.fileno(), limits.max_bytes, limits.max_pixels, precision]
        with end:
            process = subprocess.Popen(  # noqa: S603 - a module of ours
                [*command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the server's own is for its banner
                pass_fds=(end.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        return cls(process, connection)

    def ask(self, model: dict[str, object], picture: bytes | Pixels) -> bytes:
        """Raises `EOFError` or `OSError` where the process is gone."""
        self.connection.send_bytes(json.dumps(model).encode())
        self.connection.send_bytes(picture if isinstance(picture, bytes) else picture.tobytes())
        return self.connection.recv_bytes()

    def age_s(self) -> float:
        return time.monotonic() - self.started

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
