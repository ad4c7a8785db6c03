"""The health of a set of photos as tables, or as one line of JSON."""

import dataclasses
import json

import click

from anther.tables import write_table
from training.dataset.health import TINY, ClassHealth, Health

_COLUMNS = ("class", "photos", "share", "split", "median px", "least px", "copies", "clash", "broken", "tiny", "grey")
_NONE = ("0", "0.0%")
_OPTIONAL = {  # columns that are shown where a class has some, and what they mean
    "copies": "copies of another photo are left out",
    "clash": "clash: the same photo stands under two labels, and both are left out",
    "broken": "broken files cannot be decoded and are left out",
    "tiny": f"tiny: the short side is under {TINY} px",
    "grey": "grey: share of photos without colour",
}


def show(health: Health, refused: str | None) -> None:
    """For a person; `refused` is why it cannot be trained on."""
    rows = [dict(zip(_COLUMNS, _row(each), strict=True)) for each in health.classes]
    shown = [name for name in _COLUMNS if name not in _OPTIONAL or any(row[name] not in _NONE for row in rows)]
    write_table(shown, [[row[name] for name in shown] for row in rows], numbers=_COLUMNS[1:])
    click.echo(f"\n{_summary(health)}\nsplit: photos to train / validate / test")
    for name in filter(_OPTIONAL.__contains__, shown):
        click.echo(_OPTIONAL[name])
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
        _size(each.median_size), _size(each.smallest), f"{each.copies}", f"{each.conflicting}", f"{each.undecodable}",
        f"{each.tiny}", f"{each.grey:.1%}",
    ]  # fmt: skip


def _size(size: tuple[int, int] | None) -> str:
    return "-" if size is None else f"{size[0]}×{size[1]}"


def _summary(health: Health) -> str:
    formats = ", ".join(f"{count:,} {name}" for name, count in health.formats.items())
    imbalance = "a class is empty" if health.imbalance is None else f"largest class ×{health.imbalance:.1f} of smallest"
    return (
        f"{health.photos:,} usable photos, {health.bytes / 1e6:,.1f} MB ({formats}); {health.turned:,} turned by EXIF\n"
        f"{imbalance}"
    )
