"""A comparison for a person, as a table on stdout; or for a program, as one line of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from training.comparison import table
from training.comparison.records import Row, best

_TEXTS = 2  # leading columns that hold words


def show(folder: Path, rows: Sequence[Row], *, as_json: bool) -> None:
    """The table, where its files lie, and how the best candidate is finished."""
    if as_json:
        click.echo(json.dumps(table.record(folder, rows), allow_nan=False))
        return
    shown = Table(title=f"{folder.parent.name}: {table.NOTE}", title_justify="left")
    for at, heading in enumerate(table.HEADINGS):
        shown.add_column(heading, justify="left" if at < _TEXTS else "right", overflow="fold")
    for row in rows:
        shown.add_row(*table.cells(row))
    Console(markup=False, highlight=False).print(shown)
    for failure in table.failures(rows):
        click.echo(" ".join(failure.split()), err=True)
    click.echo(f"files  {folder / 'compare.md'}, compare.json, compare.svg")
    winner = best(rows)
    assert winner is not None  # or there would be nothing to show
    click.echo(f"next   anther train --resume {winner.run}")
