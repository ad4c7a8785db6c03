"""`anther evaluate`: how good a bundle or a run is."""

from pathlib import Path
from typing import Any

import click

from training.commands.options import FOLDER, SOURCE, json_option, machine, machine_options


@click.command(short_help="Measure a bundle or a run on photos of known classes.")
@click.argument("source", metavar="BUNDLE|RUN", type=FOLDER)
@click.option(
    "--data", type=SOURCE, help="Folder of photos per class, or table of them.  [default: a run's test split]"
)
@click.option(
    "--corruptions",
    is_flag=True,
    help="Also answer the photos made worse in ten mild ways (noise, blur, JPEG …): eleven times the work.",
)
@machine_options
@json_option
def evaluate(source: Path, data: Path | None, corruptions: bool, as_json: bool, **options: Any) -> None:
    """Measure a bundle or a run on photos whose classes are known: accuracy with 95 % intervals, each class,
    calibration, and what abstaining gives.
    """
    from training import pipeline
    from training.commands import summary
    from training.progress import Terminal

    found = pipeline.evaluate_any(source, data, machine(options), Terminal(), corrupted=corruptions)
    summary.show_evaluation(found, as_json=as_json)
