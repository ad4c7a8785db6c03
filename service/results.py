"""How `anther classify` shows its answers: a table for people, lines of JSON for programs, a count where a file has them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from service.answers import Classification
from service.call_failed import CallFailed
from service.results_record import Outcome, json_line

_FILE_WIDTH = 160
_ROWS = 50  # are printed together; more would stay in memory longer and be seen later
_COLUMNS = ("photo", "class", "probability", "then")
_LEAST_WIDTHS = (24, 12, 11, 0)

Outcomes = Iterable[tuple[Path, Outcome]]


class Tally:
    """What a run came to: how many photos, by which models, and why others failed."""

    def __init__(self) -> None:
        self.photos = 0
        self.models: set[str] = set()
        self.reasons: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        return self.reasons.total()

    def counted(self, outcomes: Outcomes) -> Iterator[tuple[Path, Outcome]]:
        """The same outcomes, counted as they pass."""
        for photo, outcome in outcomes:
            self.photos += 1
            if isinstance(outcome, CallFailed):
                self.reasons[outcome.reason] += 1
            else:
                self.models.add(f"{outcome.model}/{outcome.version} on {outcome.provider}")
            yield photo, outcome

    def __str__(self) -> str:
        by = f" by {', '.join(sorted(self.models))}" if self.models else ""
        why = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons.most_common())
        return f"{self.photos - self.failed:,} of {self.photos:,} answered{by}" + (f"; {why}" if why else "")


def write_json(outcomes: Outcomes) -> None:
    """One object a photo, one a line, as answers arrive."""
    for photo, outcome in outcomes:
        click.echo(json_line(str(photo), outcome))


def write_table(outcomes: Outcomes) -> None:
    """A row a photo, and what was refused and why: some at a time, so that any number of photos fits."""
    table = _TableInParts()
    rows, failed = [], []
    for photo, outcome in outcomes:
        if isinstance(outcome, CallFailed):
            failed.append(_failure(photo, outcome))
        else:
            rows.append(_cells(photo, outcome))
        if len(rows) + len(failed) == _ROWS:
            table.print(rows, failed)
            rows, failed = [], []
    table.print(rows, failed)
    if table.begun:
        click.echo()


class _TableInParts:
    """Columns stay as wide as an earlier part needed them."""

    def __init__(self) -> None:
        self._console = console = Console()
        if not console.is_terminal:  # a file or a pipe has no width that lines must fit in
            self._console = Console(width=_FILE_WIDTH)
        self._widths = list(_LEAST_WIDTHS)
        self.begun = False

    def print(self, rows: list[tuple[Text, ...]], failed: list[Text]) -> None:
        if rows:
            self._widths = [max(width, *map(len, column)) for width, column in zip(self._widths, zip(*rows), strict=True)]
            self._console.print(self._part(rows))
            self.begun = True
        for line in failed:
            self._console.print(line, soft_wrap=True)

    def _part(self, rows: list[tuple[Text, ...]]) -> Table:
        table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold", show_header=not self.begun)
        for column, width in zip(table.columns, self._widths, strict=True):
            column.min_width = width
        table.columns[0].overflow, table.columns[0].min_width = "fold", min(self._widths[0], self._console.width // 2)
        table.columns[3].no_wrap = True  # cut rather than folded on a narrow terminal; --json has it all
        table.columns[3].min_width = None
        for row in rows:
            table.add_row(*row)
        return table


def progress() -> Progress:
    """On standard error, and only where somebody looks at it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _cells(photo: Path, outcome: Classification) -> tuple[Text, ...]:
    """Never as markup: labels are folder names, and may hold brackets."""
    best, *others = outcome.predictions
    label = Text(best.label, "green") if outcome.confident else Text(f"{best.label} (unsure)", "yellow")
    rest = "  ".join(f"{found.label} {found.probability:.3f}" for found in others)
    return _name(photo), label, Text(f"{best.probability:.3f}"), Text(rest)


def _failure(photo: Path, failure: CallFailed) -> Text:
    return Text.assemble((failure.reason, "red"), " ", _name(photo), f": {failure.message}")


def _name(photo: Path) -> Text:
    """Also for names that are not the file system's encoding, as old archives leave them."""
    return Text(click.format_filename(photo))
