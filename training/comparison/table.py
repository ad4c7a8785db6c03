"""A comparison in words: one line a candidate, the same on the terminal, in `compare.md` and in `compare.json`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.comparison.records import Row, best

HEADINGS = ("network", "strategy", "accuracy (95 %)", "time", "trained", "ONNX")
NOTE = (
    "Accuracy is the share of right answers on the validation photos, with its 95 %\n"
    "interval; the test photos were not used. Trained: how many weights training could\n"
    "change."
)


def record(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """For JSON; `best` is the name of the most accurate candidate."""
    winner = best(rows)
    return {
        "comparison": str(folder),
        "measured_on": "validation split",
        "best": None if winner is None else winner.candidate.name,
        "rows": [dataclasses.asdict(row) for row in rows],
    }


def cells(row: Row) -> tuple[str, ...]:
    """One text for each heading."""
    found = row.result
    if found is None:
        return (row.candidate.backbone, row.candidate.strategy, "failed", "", "", "")
    low, high = found.top1_interval
    return (
        row.candidate.backbone,
        strategy(row),
        f"{found.top1:.3f} ({low:.3f}–{high:.3f})",
        duration(found.seconds),
        count(found.trainable),
        megabytes(found.onnx_bytes),
    )


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each failed candidate, with the reason."""
    return [f"{row.candidate.name} failed: {row.failure}" for row in rows if row.result is None]


def strategy(row: Row) -> str:
    """The strategy as requested, and the one that `auto` chose."""
    asked, found = row.candidate.strategy, row.result
    if found is None:
        return asked
    became = f"{found.strategy} {found.keep_blocks}" if found.keep_blocks else found.strategy
    return f"auto: {became}" if asked == "auto" else became


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def count(numbers: int) -> str:
    return f"{numbers / 1e6:.2f} M" if numbers >= 1e6 else f"{numbers / 1e3:.1f} k"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def markdown(name: str, rows: Sequence[Row]) -> str:
    """A page with the table and the plot that lies beside it."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(cells(row) for row in rows)]
    table = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
    lost = "".join(f"- {_plain(failure)}\n" for failure in failures(rows))
    runs = "".join(f"- {row.candidate.name}: `anther train --resume {row.run}`\n" for row in rows if row.result)
    plot = "![Accuracy](compare.svg)"
    return f"# {name}: strategies compared\n\n{table}\n\n{lost}\n{NOTE}\n\n{plot}\n\nTo finish one:\n\n{runs}"


def _plain(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())
