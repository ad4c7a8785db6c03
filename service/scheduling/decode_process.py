"""The other side of `service.scheduling.decoder`: decodes images that it reads from a connection, within limits.

It imports nothing that it does not need: it starts while an image waits.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bundle.errors import ImageRefused, ImageTooCostly
from bundle.preprocessing import Limits, Pixels, Preprocessing, decode

READY = b"ready"
"""Sent once, when it has started."""

MAX_CPU_S = 10  # for one image; those that are let in are estimated to take 1 s
_BYTES_A_PIXEL = 21  # the most that decoding takes
_SPARE_BYTES = 128 * 2**20
_NICENESS = 5  # a quarter of a processor that a lane wants too; with less, a flood of small images would stop it
_EASILY_KILLED = 900  # of 1000, where the system is short of memory
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    descriptor, server, max_bytes, max_pixels = map(int, sys.argv[1:5])
    limits = Limits(max_bytes, max_pixels)
    _end_with(server)
    _step_back()
    _limit_memory(limits)
    serve(Connection(descriptor), limits)


def serve(connection: Connection, limits: Limits) -> None:
    """Answer until the other side closes the connection."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send_bytes(READY)
        while True:
            preprocessing = Preprocessing(**json.loads(connection.recv_bytes()))
            _answer(connection, connection.recv_bytes(), preprocessing, limits)


def _answer(connection: Connection, image: bytes, preprocessing: Preprocessing, limits: Limits) -> None:
    """Seconds of both stages and then the pixels; or what went wrong."""
    _limit_cpu()
    try:
        pixels, seconds = _prepared(image, preprocessing, limits)
    except Exception as exc:
        connection.send_bytes(json.dumps(_described(exc)).encode())
        return
    connection.send_bytes(json.dumps(seconds).encode())
    connection.send_bytes(pixels.tobytes())


def _prepared(image: bytes, preprocessing: Preprocessing, limits: Limits) -> tuple[Pixels, dict[str, float]]:
    started = time.perf_counter()
    decoded = decode(image, limits)
    between = time.perf_counter()
    pixels = preprocessing.resize_and_crop(decoded)
    return pixels, {"decode": between - started, "preprocess": time.perf_counter() - between}


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        error = ImageTooCostly("takes more memory than its size explains")
    facts = error.facts if isinstance(error, ImageRefused) else {}
    return {"error": type(error).__name__, "message": str(error), "facts": facts}


def _end_with(server: int) -> None:
    """Also while it decodes, and however the server ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it has ended before that
        sys.exit(1)


def _step_back() -> None:
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # a sandbox without it
        Path("/proc/self/oom_score_adj").write_text(str(_EASILY_KILLED))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(limits: Limits) -> None:
    """What is taken already, and what the largest image that is let in takes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    largest = _BYTES_A_PIXEL * limits.max_pixels + 2 * limits.max_bytes + _SPARE_BYTES
    most = pages * resource.getpagesize() + largest
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _limit_cpu() -> None:
    """The system ends the process with SIGXCPU when one image takes too long."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + MAX_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    main()
