"""`anther train`: photos in, a measured run out."""

from typing import Any

import click

from training.commands.headings import Grouped
from training.commands.options import json_option, machine, machine_options, recipe_options, trained, training_options
from training.commands.processes import several_processes
from training.commands.repeat_options import repeat_options, repeated


@click.command(cls=Grouped, short_help="Train and measure a classifier; nothing is published.")
@training_options
@recipe_options
@repeat_options
@machine_options
@json_option
@click.pass_context
@several_processes
def train(
    context: click.Context, /, *, as_json: bool, corruptions: bool, seeds: int, folds: int | None, **options: Any
) -> None:
    """Train a classifier on a folder of photos, and measure it on a test split that training never saw.

    Everything is written to a new folder RUNS/NAME/TIME; a killed run resumes with --resume.
    """
    from training.commands import summary

    run = trained(context, options)
    repeats = repeated(run, machine(options), corruptions=corruptions, seeds=seeds, folds=folds)
    summary.show_run(run, None, as_json=as_json, repeats=repeats)
