"""`anther retrain`: all the way from photos to a published version."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.commands.options import (
    FOLDER,
    json_option,
    machine,
    machine_options,
    precision_option,
    recipe_options,
    trained,
    training_options,
)

if TYPE_CHECKING:
    from bundle.manifest import Precision


@click.command()
@training_options
@recipe_options
@machine_options
@click.option("--models", type=FOLDER, default=Path("models"), show_default=True, help="Where to publish the bundle.")
@precision_option("--export-precision")
@json_option
@click.pass_context
def retrain(
    context: click.Context, /, *, as_json: bool, models: Path, export_precision: "Precision", **options: Any
) -> None:
    """Train, export, verify and publish the next version of a model: all the way from photos to MODELS/NAME/VERSION."""
    from training import pipeline
    from training.commands import summary
    from training.progress import Terminal

    run = trained(context, options)
    folder = pipeline.export(run, None, machine(options), Terminal(), export_precision)
    summary.show_run(run, pipeline.publish(folder, models), as_json=as_json)
