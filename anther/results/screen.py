"""How `anther classify` shows its answers: a table for people, lines of JSON for programs, and what it came to."""

import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_COLUMNS = ("photo", "class", "probability", "next")
_MIN_WIDTHS = (24, 12, 11)
_GAP = 2  # between columns

Outcomes = Iterator[tuple[Path, Outcome]]
Kind = Literal["table", "json", "nothing"]
ThresholdOf = Callable[[str, int], float | None]
"""Of a model's version, from which on an answer is confident; None where it cannot be learnt any more."""


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

    def __init__(self, kind: Kind, threshold_of: ThresholdOf = lambda _model, _version: None) -> None:
        self._kind, self._threshold_of = kind, threshold_of
        shown = Console()
        self._terminal = shown.is_terminal
        # A file or a pipe has no width that lines must fit in.
        self._console = shown if self._terminal else Console(width=_FILE_WIDTH)
        self._bar_console = shown if self._terminal else Console(stderr=True)

    def show(self, outcomes: Outcomes) -> None:
        if self._kind == "table":
            _print_table(outcomes, self._console, self._threshold_of)
        for photo, outcome in outcomes:
            if self._kind == "json":
                click.echo(json_line(str(photo), outcome))

    def progress(self) -> Progress:
        """Only where somebody looks at it, and not between lines of JSON."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = not self._bar_console.is_terminal or (self._terminal and self._kind == "json")
        return Progress(*columns, console=self._bar_console, transient=True, redirect_stdout=False, disable=hidden)


def _print_table(outcomes: Outcomes, console: Console, threshold_of: ThresholdOf) -> None:
    """A row a photo, and what was refused and why: some at a time, so that any number of photos fits."""
    parts, thresholds = _Parts(console), _Thresholds(threshold_of)
    while part := list(itertools.islice(outcomes, _ROWS)):
        part.sort(key=operator.itemgetter(0))  # they come as they are ready
        parts.print(
            [_row(photo, outcome, thresholds) for photo, outcome in part if not isinstance(outcome, CallFailed)],
            [_failure(photo, outcome) for photo, outcome in part if isinstance(outcome, CallFailed)],
        )
    for line in thresholds.legend():
        console.print(line, soft_wrap=True)
    if parts.begun:
        console.print()


class _Thresholds:
    """Asked for once for each version that was unsure of an answer."""

    def __init__(self, threshold_of: ThresholdOf) -> None:
        self._threshold_of = threshold_of
        self._found: dict[tuple[str, int], float | None] = {}

    def under(self, answer: Classification) -> str:
        """How an unsure answer's probability compares."""
        version = (answer.model, answer.version)
        if version not in self._found:
            self._found[version] = self._threshold_of(*version)
        threshold = self._found[version]
        return "" if threshold is None else f" < {threshold:.3f}"

    def legend(self) -> list[Text]:
        return [
            Text(f"(unsure): under the threshold of {model}/{version}, {threshold:.3f}")
            for (model, version), threshold in sorted(self._found.items())
            if threshold is not None
        ]


@dataclass(frozen=True)
class _Row:
    """A photo's answer; of the runners-up as many are shown as fit."""

    cells: tuple[Text, Text, Text]
    runners_up: list[str]

    def within(self, width: int) -> Text:
        """A line ends between predictions; --json has them all."""
        shown = ""
        for number in range(1, len(self.runners_up) + 1):
            longer = "  ".join(self.runners_up[:number])
            if len(longer) > width:
                break
            shown = longer
        return Text(shown)


class _Parts:
    """A table that is printed part by part; columns stay as wide as an earlier part needed them."""

    def __init__(self, console: Console) -> None:
        self._console, self._widths, self.begun = console, list(_MIN_WIDTHS), False

    def print(self, rows: list[_Row], failed: list[Text]) -> None:
        if rows:
            self._widen(rows)
            self._print_table(self._part(rows))
            self.begun = True
        for line in failed:
            self._console.print(line, soft_wrap=True)

    def _print_table(self, table: Table) -> None:
        """A file or a pipe gets no blanks at the ends of lines."""
        if self._console.is_terminal:
            return self._console.print(table)
        with self._console.capture() as captured:
            self._console.print(table)
        for line in captured.get().splitlines():
            self._console.print(Text(line.rstrip()), soft_wrap=True)
        return None

    def _widen(self, rows: list[_Row]) -> None:
        """Long names and labels are folded where the line ends."""
        photo, label, probability = (max(map(len, column)) for column in zip(*(row.cells for row in rows), strict=True))
        label = max(self._widths[1], min(label, self._console.width * 2 // 5))
        probability = max(self._widths[2], probability)
        left = self._console.width - label - probability - 3 * _GAP - len(_COLUMNS[-1])
        self._widths = [max(self._widths[0], min(photo, left)), label, probability]

    def _part(self, rows: list[_Row]) -> Table:
        table = Table(*_COLUMNS, box=None, pad_edge=False, header_style="bold", show_header=not self.begun)
        for column, width in zip(table.columns, self._widths, strict=False):
            column.width, column.overflow = width, "fold"
        left = self._console.width - sum(self._widths) - len(self._widths) * _GAP
        for row in rows:
            table.add_row(*row.cells, row.within(left))
        return table


def _row(photo: Path, outcome: Classification, thresholds: _Thresholds) -> _Row:
    """Never as markup: labels are folder names, and may hold brackets."""
    best, *others = outcome.predictions
    label = Text(best.label, "green") if outcome.confident else Text(f"{best.label} (unsure)", "yellow")
    probability = f"{best.probability:.3f}" + ("" if outcome.confident else thresholds.under(outcome))
    runners_up = [f"{found.label} {found.probability:.3f}" for found in others]
    return _Row((_name(photo), label, Text(probability)), runners_up)


def _failure(photo: Path, failure: CallFailed) -> Text:
    return Text.assemble((failure.reason, "red"), " ", _name(photo), f": {failure.message}")


def _name(photo: Path) -> Text:
    """Also for names that are not the file system's encoding, as old archives leave them."""
    return Text(click.format_filename(photo))
