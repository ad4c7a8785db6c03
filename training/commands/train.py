"""`anther train`: photos in, a measured run out."""

from typing import Any

import click

from training.commands.options import json_option, machine_options, recipe_options, trained, training_options


@click.command()
@training_options
@recipe_options
@machine_options
@json_option
@click.pass_context
def train(context: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Train a classifier on a folder of photos, and measure it on a test split that training never saw.

    Everything is written to a new folder RUNS/NAME/TIME; a killed run goes on with --resume.
    """
    from training.commands import summary

    run = trained(context, options)
    summary.show_run(run, None, as_json=as_json)
