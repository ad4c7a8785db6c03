"""Options of `anther train` for further measurements: corruptions, several seeds, cross-validation."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from training.commands.headings import Headed

if TYPE_CHECKING:
    from training.comparison.repeats import Repeats
    from training.config import Machine
    from training.runs.run import Run

F = TypeVar("F", bound=Callable[..., Any])

_HEADING = "Further measurements"


def repeat_options(command: F) -> F:
    """--corruptions, --seeds and --folds."""
    corruptions = click.option(
        "--corruptions", cls=Headed, heading=_HEADING, is_flag=True,
        help="Also measure the test photos made worse in ten mild ways (noise, blur, JPEG …).",
    )  # fmt: skip
    seeds = click.option(
        "--seeds", cls=Headed, heading=_HEADING, type=click.IntRange(1), default=1, show_default=True,
        help="Trainings with different seeds, to see how much is luck; each takes the whole time again.",
    )  # fmt: skip
    folds = click.option(
        "--folds", cls=Headed, heading=_HEADING, type=click.IntRange(2), default=None, show_default="none",
        help="Cross-validate on the photos outside the test split: so many more trainings.",
    )  # fmt: skip
    return corruptions(seeds(folds(command)))


def repeated(
    run: "Run", machine: "Machine", *, corruptions: bool, seeds: int, folds: int | None
) -> dict[str, "Repeats"]:
    """Run the requested repetitions of a finished run; the result has 'seeds' and 'folds' where they were requested."""
    from training import pipeline
    from training.comparison import repeats
    from training.progress import Terminal

    reporter = Terminal()
    if corruptions:
        pipeline.measure_corruptions(run, machine, reporter)
    found = {}
    if seeds > 1:
        found["seeds"] = repeats.over_seeds(run, seeds, machine, reporter)
    if folds is not None:
        found["folds"] = repeats.over_folds(run, folds, machine, reporter)
    return found
