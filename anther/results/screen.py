"""How `anther classify` shows its answers: a table for people, lines of JSON for programs, and what it came to."""

import itertools
import operator
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from anther.client.answers import Classification
from anther.client.call_failed import CallFailed
from anther.results.record import Outcome, json_line

_FILE_WIDTH = 160
_ROWS = 50  # are printed together; more would stay in memory longer and be seen later
_COLUMNS = ("photo", "class", "probability", "then")
_LEAST_WIDTHS = (24, 12, 11, 0)

Outcomes = Iterator[tuple[Path, Outcome]]
Kind = Literal["table", "json", "nothing"]


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


class Screen:
    """Standard output for answers, and a progress bar: in a terminal on the same console, as each would draw over the
    other, else on standard error.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        shown = Console()
        self._terminal = shown.is_terminal
        # A file or a pipe has no width that lines must fit in.
        self._console = shown if self._terminal else Console(width=_FILE_WIDTH)
        self._bar_console = shown if self._terminal else Console(stderr=True)

    def show(self, outcomes: Outcomes) -> None:
        if self._kind == "table":
            _print_table(outcomes, self._console)
        for photo, outcome in outcomes:
            if self._kind == "json":
                click.echo(json_line(str(photo), outcome))

    def progress(self) -> Progress:
        """Only where somebody looks at it, and not between lines of JSON."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = not self._bar_console.is_terminal or (self._terminal and self._kind == "json")
        return Progress(*columns, console=self._bar_console, transient=True, redirect_stdout=False, disable=hidden)


def _print_table(outcomes: Outcomes, console: Console) -> None:
    """A row a photo, and what was refused and why: some at a time, so that any number of photos fits."""
    parts = _Parts(console)
    while part := list(itertools.islice(outcomes, _ROWS)):
        part.sort(key=operator.itemgetter(0))  # they come as they are ready
        parts.print(
            [_cells(photo, outcome) for photo, outcome in part if not isinstance(outcome, CallFailed)],
            [_failure(photo, outcome) for photo, outcome in part if isinstance(outcome, CallFailed)],
        )
    if parts.begun:
        console.print()


class _Parts:
    """A table that is printed part by part; columns stay as wide as an earlier part needed them."""

    def __init__(self, console: Console) -> None:
        self._console, self._widths, self.begun = console, list(_LEAST_WIDTHS), False

    def print(self, rows: list[tuple[Text, ...]], failed: list[Text]) -> None:
        if rows:
            self._widen(rows)
            self._console.print(self._part(rows))
            self.begun = True
        for line in failed:
            self._console.print(line, soft_wrap=True)

    def _widen(self, rows: list[tuple[Text, ...]]) -> None:
        needed = [max(map(len, column)) for column in zip(*rows, strict=True)]
        most = (self._console.width // 2, *needed[1:3], 0)  # long names are folded, and the last column is cut
        self._widths = [max(width, min(pair)) for width, *pair in zip(self._widths, needed, most, strict=True)]

    def _part(self, rows: list[tuple[Text, ...]]) -> Table:
        table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold", show_header=not self.begun)
        for column, width in zip(table.columns, self._widths, strict=True):
            column.min_width = width
        table.columns[0].overflow = "fold"
        table.columns[3].no_wrap = True  # cut rather than folded on a narrow terminal; --json has it all
        for row in rows:
            table.add_row(*row)
        return table


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
