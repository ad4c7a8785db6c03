"""One retrain of a model at a time, by a lock that the kernel takes back when its holder dies, however it dies."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from anther.files import lock
from training.errors import RetrainRunning

FILE = ".retrain.lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder`'s lock, if nobody else does. Raises `RetrainRunning` with who does, on which machine, since when.

    The file stays when the lock is given back: to delete it would let two processes hold two locks of one name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a+") as file:
        try:
            lock(file.fileno(), wait=False)
        except BlockingIOError as exc:
            raise RetrainRunning(folder.name, _holder(file)) from exc
        _sign(file)
        yield


def _sign(file: TextIO) -> None:
    file.truncate(0)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
    file.flush()


def _holder(file: TextIO) -> str:
    """In words, for a person; the lock itself does not depend on what the file says."""
    file.seek(0)
    try:
        found = json.loads(file.read())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):  # its holder is about to sign
        return "another process, just now"
