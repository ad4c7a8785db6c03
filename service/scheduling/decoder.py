"""A process that decodes images which take long: with a limit of memory and time, and killed when nobody waits for it.

What holds the interpreter's lock or more memory than foreseen there, or ends in a crash, harms no other request.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np

from anther import program
from anther.errors import AntherError
from bundle import errors as bundle_errors
from bundle.errors import ImageRefused, ImageTooCostly
from bundle.preprocessing import Limits, Preprocessing
from service.errors import DecoderUnavailable
from service.scheduling.decode_process import MAX_CPU_S, READY
from service.scheduling.scheduler import Prepared

Over = Literal["deadline", "left"]
End = Literal["deadline", "left", "cpu", "memory", "crash", "silent", "idle", "closed"]
"""Why a process ended. Of `deadline` and `left` its image's caller was the reason, of the next four the image."""

OnEnd = Callable[[End], None]
"""Called on the thread that owned the process."""

_ASK_S = 0.02  # between two looks at whether somebody still waits
_MAX_SILENCE_S = 120.0  # for an image without a deadline; on a busy machine `MAX_CPU_S` may take that long


def uncounted(reason: End) -> None:
    """Nobody counts."""


class NobodyWaits(Exception):
    """The deadline passed, or the caller left; the process was killed."""


class DecodeProcess:
    """Starts its process with the first image. One thread uses it: the process ends with the thread that started it."""

    def __init__(self, limits: Limits, on_end: OnEnd) -> None:
        self._limits = limits
        self._on_end = on_end
        self._running: _Running | None = None

    def prepare(self, image: bytes, preprocessing: Preprocessing, over: Callable[[], Over | None]) -> Prepared:
        """`over` is asked many times a second whether nobody waits any more.

        Raises `ImageRefused` as the process does, `ImageTooCostly` where it ended, `NobodyWaits` and
        `DecoderUnavailable`.
        """
        running = self._started(over)
        try:
            running.connection.send_bytes(json.dumps(asdict(preprocessing)).encode())
            running.connection.send_bytes(image)
            answer = json.loads(self._received(running, over))
            pixels = b"" if "error" in answer else running.connection.recv_bytes()
        except (EOFError, OSError) as exc:
            raise self._death(running) from exc
        if "error" in answer:
            raise self._refusal(answer)
        side = preprocessing.crop
        return Prepared(np.frombuffer(pixels, np.uint8).reshape(side, side, 3), **answer)

    def end(self, reason: End) -> None:
        """End the process, if there is one; the next image starts another."""
        if self._running is not None:
            self._running.end()
            self._running = None
            self._on_end(reason)

    def _started(self, over: Callable[[], Over | None]) -> "_Running":
        if self._running is not None and self._running.process.poll() is not None:
            self.end("crash")  # without an image, so it was killed from outside
        if self._running is not None:
            return self._running
        try:
            running = self._running = _Running.start(self._limits)
            if self._received(running, over) != READY:
                raise EOFError
        except (EOFError, OSError) as exc:
            self.end("crash")
            raise DecoderUnavailable(getattr(exc, "strerror", None) or "it ended before it was ready") from exc
        return running

    def _received(self, running: "_Running", over: Callable[[], Over | None]) -> bytes:
        began = time.monotonic()
        while not running.connection.poll(_ASK_S):
            if reason := over():
                self.end(reason)
                raise NobodyWaits
            if time.monotonic() - began > _MAX_SILENCE_S:
                self.end("silent")
                raise ImageTooCostly(f"takes more than {_MAX_SILENCE_S:.0f} s")
        return running.connection.recv_bytes()

    def _death(self, running: "_Running") -> ImageTooCostly:
        code = running.process.wait()
        if code == -signal.SIGXCPU:
            self.end("cpu")
            return ImageTooCostly(f"takes more than {MAX_CPU_S} s of a processor")
        self.end("crash")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return ImageTooCostly(f"ended its process ({how})")

    def _refusal(self, answer: dict[str, Any]) -> Exception:
        """The error that the process met; a refusal of the image is of the same type, with the same facts."""
        kind = getattr(bundle_errors, answer["error"], None)
        if not (isinstance(kind, type) and issubclass(kind, ImageRefused)):
            return RuntimeError(f"a process that decodes met {answer['error']}: {answer['message']}")
        if kind is ImageTooCostly:
            self.end("memory")
        refusal = kind.__new__(kind)
        AntherError.__init__(refusal, answer["message"], **answer["facts"])
        return refusal


@dataclass(frozen=True, slots=True)
class _Running:
    """A process and this end of the connection to it."""

    process: "subprocess.Popen[bytes]"
    connection: Connection

    @classmethod
    def start(cls, limits: Limits) -> "_Running":
        """Raises `OSError`."""
        connection, end = Pipe()
        arguments = [end.fileno(), os.getpid(), limits.max_bytes, limits.max_pixels]
        with end:
            process = subprocess.Popen(  # noqa: S603 - a module of ours
                program.command("service.scheduling.decode_process", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the server's own is for its banner
                pass_fds=(end.fileno(),),
                env={**program.environment(), "OPENBLAS_NUM_THREADS": "1"},  # each takes address space
                # Ctrl-C is for the server, which ends it. In a session of its own its niceness would not count: the
                # system shares the processor among sessions first (sched_autogroup).
                process_group=0,
            )
        return cls(process, connection)

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
