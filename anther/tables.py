"""Tables for people: within the terminal's width, or else row by row. A file or a pipe has no width to fit in."""

import textwrap
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | Text

_WIDEST = 10**5  # characters: what a file or a pipe is taken for
_LEAST_VALUE = 20  # characters; on a narrower terminal a wrapped value could no longer be read


def write_table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, numbers: Collection[str] = (), to: Console | None = None
) -> None:
    """One line a row where that fits, else a block a row. Columns whose heading is in `numbers` end on the right."""
    console = _stdout() if to is None else to
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_text, row))
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    if needed > console.width:
        _write_blocks(headings, rows, console)
    else:
        console.print(table)


def write_rows(rows: Iterable[tuple[str, Cell]], *, whole: Collection[str] = (), to: Console | None = None) -> None:
    """Names and values in two columns; long values go on below themselves, in whole words.

    Values named in `whole` stay on one line, so that a command can be copied.
    """
    console, rows = _stdout() if to is None else to, list(rows)
    indent = max((len(name) for name, _ in rows), default=0) + 2
    width = max(console.width - indent, _LEAST_VALUE)
    for name, value in rows:
        lines = [str(value)] if name in whole else _lines(str(value), width)
        for at, line in enumerate(lines):
            lead = Text(f"{name:<{indent}}" if at == 0 else " " * indent, "bold")
            console.print(Text.assemble(lead, (line, value.style if isinstance(value, Text) else "")), soft_wrap=True)


def _write_blocks(headings: Sequence[str], rows: Sequence[Sequence[Cell]], console: Console) -> None:
    for row in rows:
        console.print(_text(row[0]), style="bold", soft_wrap=True)
        write_rows(
            [(f"  {name}", cell) for name, cell in zip(headings[1:], row[1:], strict=True) if str(cell)], to=console
        )


def _lines(value: str, width: int) -> list[str]:
    """A path or a digest is never broken: it can be copied wherever the terminal breaks it."""
    return textwrap.wrap(value, width, break_long_words=False, break_on_hyphens=False) or [""]


def _text(cell: Cell) -> Text:
    """Never as markup: labels and reasons name files, and may hold brackets."""
    return cell if isinstance(cell, Text) else Text(cell)


def _stdout() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=_WIDEST, highlight=False)
