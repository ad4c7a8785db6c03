"""`anther export`: a finished run becomes a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training.commands.options import FOLDER, int8_option, json_option, machine, machine_options, precision_option

if TYPE_CHECKING:
    from bundle.precision import PrimaryPrecision


@click.command(short_help="Turn a finished run into a bundle, and verify it.")
@click.argument("run", metavar="RUN", type=FOLDER)
@click.option("--output", type=FOLDER, help="Folder of the bundle; it must not exist.  [default: RUN/bundle]")
@precision_option("--precision")
@int8_option
@click.option("--tf32", default=0.0, show_default=True, type=click.FloatRange(0),
              help="Let a GPU multiply fp32 with mantissas of 10 bits, which is quicker, where that moves no golden "
              "logit by more than this; 0 forbids it.")  # fmt: skip
@machine_options
@json_option
def export(
    run: Path,
    output: Path | None,
    export_precision: "PrimaryPrecision",
    int8: bool,
    tf32: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn a finished run into a bundle, and prove that ONNX Runtime answers as torch does."""
    if tf32 > 0 and export_precision != "fp32":
        raise click.UsageError("--tf32 is a way to compute in fp32; leave it out, or --precision")

    from training import pipeline
    from training.commands import summary
    from training.exporting.bundling import ExportOptions
    from training.progress import Terminal
    from training.runs.run import Run

    settings = ExportOptions(export_precision, int8, tf32)
    folder = pipeline.export(Run(run), output, machine(options), Terminal(), settings)
    summary.show_bundle(folder, as_json=as_json)
