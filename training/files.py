"""Records on the disk as JSON, each file whole or absent."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anther.files import replace


def write_json(path: Path, record: Any) -> None:
    """One indented JSON document; NaN is refused, as JSON has none. The folder is created where it is missing."""
    replace(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode(), make_folder=True)


def write_json_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON document a line. The folder is created where it is missing."""
    replace(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode(), make_folder=True)
