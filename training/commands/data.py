"""`anther data`: bring photos here, and see whether a set of them is fit to learn from."""

from pathlib import Path
from typing import Any

import click

from training.commands.options import SOURCE, column_options, json_option


@click.group(short_help="Download the flower photos, or check a set of photos.")
def data() -> None:
    """Download the flower photos, or check the health of a set of photos."""


@data.command(short_help="Download TensorFlow's 3,670 flower photos of five classes.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("flower_photos"))
@click.option("--url", help="Take the archive from this mirror.  [default: where TensorFlow publishes it]")
@click.option("--sha256", help="Digest of the archive, for another one.  [default: that of the published one]")
def flowers(folder: Path, url: str | None, sha256: str | None) -> None:
    """Download TensorFlow's flower photos into FOLDER, by default flower_photos: 3,670 photos, 5 classes, 229 MB.

    A broken download resumes where it was. The photos are under Creative Commons Attribution by the photographers
    named in their LICENSE.txt.
    """
    from training.dataset.download import Published
    from training.dataset.flowers import FLOWERS, bring
    from training.progress import Terminal

    size = FLOWERS.size if sha256 is None else None
    bring(Published(url or FLOWERS.url, (sha256 or FLOWERS.sha256).lower(), size), folder, Terminal())
    click.echo(f"{folder} is ready; next: anther retrain --data {folder} --name garden")


@data.command(short_help="Show whether a set of photos is fit to learn from.")
@click.argument("source", metavar="DATA", type=SOURCE)
@column_options
@click.option(
    "--split-seed", type=click.IntRange(0), default=0, show_default=True, help="Salt of the 80/10/10 split to show."
)
@click.option("--strict", is_flag=True, help="Refuse content that stands under two labels, as train --strict does.")
@json_option
def check(source: Path, split_seed: int, strict: bool, as_json: bool, **options: Any) -> None:
    """Show the health of DATA, a folder with one subfolder per class or a .csv, .tsv or .parquet table.

    Exit code 0 where it can be trained on, 1 where not.
    """
    from training.commands import health_view
    from training.dataset import data as dataset
    from training.dataset import split
    from training.dataset.health import health
    from training.dataset.tables import Columns
    from training.errors import DataRefused
    from training.progress import Terminal

    scanned = dataset.scan(source, Terminal(), Columns(options["path_column"], options["label_column"]))
    kept, found = dataset.check(scanned)
    report = health(scanned, kept, found, split_seed)
    show = health_view.show_json if as_json else health_view.show
    try:
        dataset.require_trainable(scanned, found, source, strict=strict)
        split.split(kept, split_seed)
    except DataRefused as exc:
        show(report, str(exc))
        raise
    show(report, None)
