"""The shadow's process, of idle priority: it computes only while no other process wants the processor.

A thread of idle priority would delay requests: when it holds the interpreter lock and waits for the processor, every
other thread waits for the lock (up to 600 ms with two busy processes on two cores).
"""

import contextlib
import hashlib
import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import numpy.typing as npt

from anther import program
from anther.backoff import Backoff
from bundle.preprocessing import Limits, Pixels
from bundle.repository import Bundle
from service.config import PrecisionChoice

log = logging.getLogger(__name__)

_LOWEST_PRIORITY = 19

FAILED = b"-"
"""An answer begins with this and goes on with the reason, or it is the probabilities, float32 [C]."""
COMPUTED = b"+"


class ShadowWorkerFailed(Exception):
    """The process gave no answer; the message is a sentence with the reason."""


def question(bundle: Bundle, image: bytes | Pixels) -> dict[str, object]:
    """The message before an image: which model computes, and the shape of the pixels, None for an encoded image.

    The identity tells a version from another one that was published under its number.
    """
    shape = None if isinstance(image, bytes) else image.shape
    return {"folder": str(bundle.path), "version": bundle.version, "identity": identity(bundle), "shape": shape}


def identity(bundle: Bundle) -> str:
    """SHA-256, in hexadecimal, of all files' digests, the manifest's included."""
    return hashlib.sha256(json.dumps(bundle.digests).encode()).hexdigest()


def step_back(process: int) -> bool:
    """Let a child process run only while a core is idle; False where the system forbids that.

    It needs no privileges on Linux, and cannot be undone without them. Processes that it starts later inherit it.
    """
    try:
        os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))
    except OSError as exc:  # forbidden in some containers, or it has ended
        log.warning("process %d cannot be scheduled as idle (%s); it gets the lowest priority", process, exc.strerror)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process, _LOWEST_PRIORITY)
        return False
    return True


class ShadowWorker:
    """Starts its process with the first image. One thread uses it; any thread may `close` it."""

    def __init__(
        self, limits: Limits, step_back: Callable[[int], object] = step_back, precision: PrecisionChoice = "fp32"
    ) -> None:
        self._limits = limits
        self._precision = precision
        self._step_back = step_back
        self._lock = threading.Lock()  # between starting and closing
        self._closed = False
        self._running: _Running | None = None
        self._backoff = Backoff()
        self._not_before = 0.0

    def compute(self, bundle: Bundle, image: bytes | Pixels) -> npt.NDArray[np.float32]:
        """The probabilities, float32 [C], of an encoded image or of pixels uint8 [H, W, 3]. It has no time limit.

        Raises `ShadowWorkerFailed`.
        """
        running = self._running or self._start()
        try:
            answer = running.ask(question(bundle, image), image)
        except (EOFError, OSError) as exc:
            self.rest()
            self._not_before = time.monotonic() + self._backoff.after_run(running.age_s())
            raise ShadowWorkerFailed("its process ended") from exc
        if answer[:1] == FAILED:
            raise ShadowWorkerFailed(answer[1:].decode())
        return np.frombuffer(answer[1:], np.float32)

    def rest(self) -> None:
        """End the process; the next image starts another one."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def close(self) -> None:
        """Kill the process, from any thread, and start no other; a caller of `compute` gets `ShadowWorkerFailed`."""
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
        arguments = [end.fileno(), limits.max_bytes, limits.max_pixels, precision]
        with end:
            process = subprocess.Popen(  # noqa: S603 - a module of ours
                program.command("service.core.shadow_process", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the server's own is for its banner
                pass_fds=(end.fileno(),),
                env=program.environment(),
                start_new_session=True,  # Ctrl-C is for the server, which ends it
            )
        return cls(process, connection)

    def ask(self, model: dict[str, object], image: bytes | Pixels) -> bytes:
        """Raises `EOFError` or `OSError` where the process is gone."""
        self.connection.send_bytes(json.dumps(model).encode())
        self.connection.send_bytes(image if isinstance(image, bytes) else image.tobytes())
        return self.connection.recv_bytes()

    def age_s(self) -> float:
        return time.monotonic() - self.started

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
