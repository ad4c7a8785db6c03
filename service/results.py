"""How `anther classify` shows its answers: a table for people, lines of JSON for programs."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from service.client import CallFailed, Classification

_FILE_WIDTH = 160

Outcomes = Iterable[tuple[Path, Classification | CallFailed]]


def write_json(outcomes: Outcomes) -> int:
    """One object a photo, one a line, as answers arrive. Returns how many photos failed."""
    failed = 0
    for photo, outcome in outcomes:
        failed += isinstance(outcome, CallFailed)
        click.echo(json.dumps({"photo": str(photo), **_fields(outcome)}))  # ASCII: any file name, any locale
    return failed


def write_table(outcomes: Outcomes, total: int) -> int:
    """A row a photo, then what was refused and why. Returns how many photos failed."""
    table = Table("photo", "class", "probability", "then", box=None, pad_edge=False, header_style="bold")
    table.columns[0].overflow, table.columns[0].min_width = "fold", 24
    table.columns[1].min_width, table.columns[2].min_width = 12, 11
    table.columns[3].no_wrap = True  # cut rather than folded on a narrow terminal; --json has it all
    models, failed = set(), []
    errors = Console(stderr=True)
    with _progress(errors) as progress:
        task = progress.add_task("classifying", total=total)
        for photo, outcome in outcomes:
            progress.advance(task)
            if isinstance(outcome, CallFailed):
                failed.append((photo, outcome))
            else:
                table.add_row(_name(photo), *_cells(outcome))
                models.add(f"{outcome.model}/{outcome.version} on {outcome.provider}")
    _print(table, models, failed, total)
    return len(failed)


def _print(table: Table, models: set[str], failed: list[tuple[Path, CallFailed]], total: int) -> None:
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width that lines must fit in
        console = Console(width=_FILE_WIDTH)
    if table.row_count:
        console.print(table, end="\n\n")
    for photo, failure in failed:
        line = Text.assemble((failure.reason, "red"), " ", _name(photo), f": {failure.message}")
        console.print(line, soft_wrap=True)
    console.print(f"{total - len(failed)} of {total} answered" + (f" by {', '.join(sorted(models))}" if models else ""))


def _name(photo: Path) -> Text:
    """Also for names that are not the file system's encoding, as old archives leave them."""
    return Text(click.format_filename(photo))


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _cells(outcome: Classification) -> tuple[Text, Text, Text]:
    """Never as markup: labels are folder names, and may hold brackets."""
    best, *others = outcome.predictions
    label = Text(best.label, "green") if outcome.confident else Text(f"{best.label} (unsure)", "yellow")
    rest = "  ".join(f"{found.label} {found.probability:.3f}" for found in others)
    return label, Text(f"{best.probability:.3f}"), Text(rest)


def _fields(outcome: Classification | CallFailed) -> dict[str, Any]:
    if isinstance(outcome, CallFailed):
        error = {"code": outcome.code, "reason": outcome.reason, "message": outcome.message}
        nothing: dict[str, Any] = {
            "model": None,
            "version": None,
            "provider": None,
            "confident": None,
            "predictions": [],
        }
        return {**nothing, "error": error}
    return {
        "model": outcome.model,
        "version": outcome.version,
        "provider": outcome.provider,
        "confident": outcome.confident,
        "predictions": [asdict(found) for found in outcome.predictions],
        "error": None,
    }
