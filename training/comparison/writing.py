"""A comparison's files: `compare.json`, `compare.md` and `compare.svg`."""

from collections.abc import Sequence
from pathlib import Path

from training.comparison import plot, table
from training.comparison.records import Row
from training.files import write_atomic, write_json


def write(folder: Path, rows: Sequence[Row]) -> None:
    write_json(folder / "compare.json", table.record(folder, rows))
    write_atomic(folder / "compare.md", table.markdown(folder.parent.name, rows).encode())
    write_atomic(folder / "compare.svg", plot.svg(rows).encode())
