"""Suspects as tables, or as one line of JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import click

from anther.tables import write_table
from training.suspects.records import Copy, InspectedPhoto, Suspects


def show(found: Suspects, page: Path, most: int, *, as_json: bool) -> None:
    """For a person at most so many of each kind, for a program all."""
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "page": str(page)}, allow_nan=False))
        return
    labels = [
        (_name(case.photo), f"{case.photo.label} ({case.probability:.2f})",
         f"{case.suggested} ({case.probability_suggested:.2f})")
        for case in found.labels
    ]  # fmt: skip
    pairs = [
        (_name(pair.first), _name(pair.second), f"{pair.correlation:.3f}", _warning(pair)) for pair in found.copies
    ]
    far = [(_name(case.photo), case.photo.label, f"{case.score:.1f}") for case in found.outliers]
    _table("labels that may be wrong", ("photo", "label (p)", "rather (p)"), labels, most)
    _table("nearly the same photo", ("photo", "and", "correlation", "beware"), pairs, most)
    _table("unlike all others", ("photo", "label", "score (IQR)"), far, most)
    click.echo(f"photos  {found.photos}")
    click.echo(f"page    {page}")


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], most: int) -> None:
    shown = f"the first {most} of {len(rows)}" if len(rows) > most else str(len(rows)) if rows else "none"
    click.echo(f"{title}: {shown}")
    if rows:
        write_table(columns, rows[:most])
    click.echo()


def _name(photo: InspectedPhoto) -> str:
    return f"{photo.path} ({photo.part})"


def _warning(pair: Copy) -> str:
    return ", ".join(
        text for text, holds in (("two labels", pair.labels_differ), ("two parts", pair.parts_differ)) if holds
    )
