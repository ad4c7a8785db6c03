"""A comparison for a person, as a table on stdout; or for a program, as one line of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from anther.tables import write_rows, write_table
from training.comparison import table
from training.comparison.records import Row, best


def show(folder: Path, rows: Sequence[Row], *, as_json: bool) -> None:
    """The table, where its files lie, and how the best candidate is finished."""
    if as_json:
        click.echo(json.dumps(table.record(folder, rows), allow_nan=False))
        return
    click.echo(f"{folder.parent.name}: strategies compared\n")
    write_table(table.HEADINGS, [table.cells(row) for row in rows], numbers=table.HEADINGS[2:])
    click.echo(f"\n{table.NOTE}\n")
    for failure in table.failures(rows):
        click.echo(" ".join(failure.split()), err=True)
    winner = best(rows)
    assert winner is not None  # or there would be nothing to show
    files = f"{folder / 'compare.md'}, compare.json, compare.svg"
    write_rows([("files", files), ("next", f"anther train --resume {winner.run}")], whole=("next",))
