"""`anther compare`: several strategies and networks on the same photos, in one table."""

import json
import typing
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from anther.tables import write_rows, write_table
from training.commands.headings import Grouped
from training.commands.options import (
    json_option,
    machine,
    machine_options,
    recipe_of,
    recipe_options,
    request_of,
    require_start,
    training_options,
)
from training.commands.processes import several_processes
from training.config import Backbone, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.comparison.records import Row

_OF_CANDIDATES = {"strategy", "backbone"}  # settings in which candidates differ


class _Several(click.ParamType[tuple[str, ...]]):
    """Names from a list, separated by commas."""

    name = "names"

    def __init__(self, choices: tuple[str, ...]) -> None:
        self._choices = choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
        for name in names:
            if name not in self._choices:
                self.fail(f"'{name}' is none of {', '.join(self._choices)}", param, ctx)
        return names


@click.command(cls=Grouped, short_help="Train several strategies and networks on the same photos.")
@click.option(
    "--strategies",
    type=_Several(typing.get_args(Strategy)),
    default="head,truncate,finetune,scratch",
    show_default=True,
    help="What to compare, separated by commas; auto is possible too.",
)
@click.option(
    "--backbones",
    type=_Several(typing.get_args(Backbone)),
    show_default="the one of --config, or mobilenet_v2",
    help="Networks to compare, separated by commas; every strategy is tried on each.",
)
@training_options
@recipe_options
@machine_options
@json_option
@click.pass_context
@several_processes
def compare(context: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Train several strategies and networks on the same photos and the same split, and show them in one table.

    The budget is --epochs, the same for all; what does not train in epochs takes less. Accuracy is that on the
    validation split: choosing by the test split would spoil it. Everything is written to a new folder
    RUNS/NAME/compare-TIME: compare.json, compare.md, compare.svg, and a run for each candidate, which `anther train
    --resume` finishes. A killed comparison resumes with --resume. A candidate that fails is listed with its reason;
    under torchrun, where other processes may wait for it, it can end the comparison, and --resume finishes it.
    """
    from training.comparison import running

    require_start(context, options)
    _refuse_candidates_with_resume(context, options)
    folder, rows = _compared(context, options)
    running.write(folder, rows)
    _show(folder, rows, as_json=as_json)


compare.params = [parameter for parameter in compare.params if parameter.name not in _OF_CANDIDATES]


def _refuse_candidates_with_resume(context: click.Context, options: dict[str, Any]) -> None:
    for name in ("strategies", "backbones"):
        if options["resume"] is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} cannot be given with --resume: the comparison keeps its own", context)


def _compared(context: click.Context, options: dict[str, Any]) -> "tuple[Path, list[Row]]":
    from training.comparison import running
    from training.comparison.records import candidates
    from training.progress import Terminal
    from training.runs.run import Run

    if options["resume"] is not None:
        return options["resume"], running.resume(Run(options["resume"]), machine(options), Terminal())
    networks: Any = options["backbones"] or (context.lookup_default("backbone") or "mobilenet_v2",)
    recipe = recipe_of(context, {**options, "strategy": "finetune", "backbone": networks[0]})
    wanted = candidates(networks, options["strategies"])
    return running.compare(request_of(options), recipe, wanted, machine(options), Terminal())


def _show(folder: "Path", rows: "Sequence[Row]", *, as_json: bool) -> None:
    """Print the table, where its files lie, and how to finish the best candidate; or one line of JSON."""
    from training.comparison import table
    from training.comparison.records import best

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
