"""`anther evaluate`: how good a bundle or a run is."""

from pathlib import Path
from typing import Any

import click

from training.commands.options import FOLDER, json_option, machine, machine_options


@click.command()
@click.argument("source", metavar="BUNDLE|RUN", type=FOLDER)
@click.option(
    "--data", type=FOLDER, help="Folder with one subfolder of photos per class.  [default: a run's test split]"
)
@machine_options
@json_option
def evaluate(source: Path, data: Path | None, as_json: bool, **options: Any) -> None:
    """Measure a bundle or a run on photos whose classes are known: top-1 with a 95 % interval, and each class."""
    from training import pipeline
    from training.commands import summary
    from training.progress import Terminal

    found = pipeline.evaluate_any(source, data, machine(options), Terminal())
    summary.show_evaluation(found, as_json=as_json)
