"""`anther inspect`: suspicious photos, or the content of a bundle."""

import typing
from pathlib import Path
from typing import Any

import click

from training.commands.options import SOURCE, column_options, json_option, machine, machine_options
from training.config import Backbone

_MANIFEST = "manifest.json"


@click.command(short_help="List photos whose label may be wrong, and near duplicates.")
@click.argument("source", metavar="DATA|RUN|BUNDLE", type=SOURCE)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for suspects.html and suspects.json.  [default: RUN, or RUNS/suspects/DATA]",
)
@click.option(
    "--folds",
    type=click.IntRange(3),
    default=5,
    show_default=True,
    help="Parts of the photos, each judged by a model that saw the others; more judge better and take longer.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="Most suspects of each kind to show."
)
@click.option(
    "--weights",
    help="Weights of the network: 'imagenet', 'none', or the PATH of a state_dict.  [default: the run's, or imagenet]",
)
@click.option(
    "--backbone",
    type=click.Choice(typing.get_args(Backbone)),
    metavar="NAME",
    help="Its kind, as for training.  [default: the run's, or mobilenet_v2]",
)
@click.option(
    "--split-seed",
    type=int,
    default=0,
    show_default=True,
    help="For DATA: seed of the split in which copies across parts are told.",
)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="For DATA: folder of the cache of features.",
)
@column_options
@machine_options
@json_option
def inspect(source: Path, output: Path | None, limit: int, as_json: bool, **options: Any) -> None:
    """List photos whose label may be wrong, that are nearly the same, or that are unlike all others; or say what is in
    a bundle.

    A network that was not trained on the photos computes their features. No photo is changed.
    """
    from training.commands import contents, suspect_view

    if (source / _MANIFEST).exists():
        contents.show(source, as_json=as_json)
        return

    from training.dataset.tables import Columns
    from training.progress import Terminal
    from training.suspects import inspection

    columns = Columns(options["path_column"], options["label_column"])
    settings = inspection.InspectionOptions(
        options["weights"], options["backbone"], options["folds"], options["split_seed"], options["runs"], columns
    )
    found, subject = inspection.suspects(source, settings, machine(options), Terminal())
    usual = source if inspection.is_run(source) else options["runs"] / "suspects" / source.stem
    page = inspection.write(found, subject, output or usual, limit)
    suspect_view.show(found, page, limit, as_json=as_json)
