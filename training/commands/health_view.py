"""The health of a set of photos as tables, or as one line of JSON."""

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from training.dataset.health import TINY, ClassHealth, Health

_COLUMNS = (
    "class", "photos", "share", "split", "copies", "clash", "broken", "median", "least", "tiny", "grey",
)  # fmt: skip
_WIDTH = 100  # characters that the table may take where the terminal is narrower, rather than lose some


def show(health: Health, refused: str | None) -> None:
    """For a person; `refused` is why it cannot be trained on."""
    console = Console()
    table = Table(*_COLUMNS, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for each in health.classes:
        table.add_row(*_row(each))
    console.print(table, width=max(console.width, _WIDTH), crop=False)
    click.echo(f"\n{_summary(health)}")
    for line in health.advice:
        click.echo(f"- {line}")
    if refused is None:
        click.echo("ready to train")


def show_json(health: Health, refused: str | None) -> None:
    """For a program: every figure, and every file that is left out by name."""
    click.echo(json.dumps({"trainable": refused is None, "refused": refused, **dataclasses.asdict(health)}))


def _row(each: ClassHealth) -> list[str]:
    return [
        each.label, f"{each.photos:,}", f"{each.share:.1%}", "/".join(f"{count}" for count in each.parts.values()),
        f"{each.copies}", f"{each.conflicting}", f"{each.undecodable}", _size(each.median_size), _size(each.smallest),
        f"{each.tiny}", f"{each.grey:.1%}",
    ]  # fmt: skip


def _size(size: tuple[int, int] | None) -> str:
    return "-" if size is None else f"{size[0]}×{size[1]}"


def _summary(health: Health) -> str:
    formats = ", ".join(f"{count:,} {name}" for name, count in health.formats.items())
    imbalance = "a class is empty" if health.imbalance is None else f"largest class ×{health.imbalance:.1f} of smallest"
    return (
        f"{health.photos:,} usable photos, {health.bytes / 1e6:,.1f} MB ({formats}); {imbalance}; "
        f"{health.turned} turned by EXIF\n(split: photos to train / validate / test; sizes in pixels; tiny: short side "
        f"under {TINY})"
    )
