"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STAGED = re.compile(r"\..+\.[0-9a-f]{32}")


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, for readers as for a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with staging.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else writes to now."""
    for path in folder.iterdir():
        if _STAGED.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, record: Any) -> None:
    """One indented JSON document; NaN is refused, as JSON has none."""
    write_atomic(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def write_json_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON document a line."""
    write_atomic(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode())
