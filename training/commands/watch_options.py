"""Options of `anther retrain --watch`: how often to rescan the folder, and how many new photos start a retrain."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from training.publishing.watch import Plan

F = TypeVar("F", bound=Callable[..., Any])


def watch_options(command: F) -> F:
    options = [
        click.option(
            "--watch", is_flag=True, help="Go on for ever: retrain whenever enough new photos have arrived in --data."
        ),
        click.option(
            "--min-new",
            type=click.IntRange(1),
            default=50,
            show_default=True,
            help="With --watch: new photos, by content and class, that are enough to begin.",
        ),
        click.option(
            "--every-s",
            type=click.FloatRange(0, min_open=True),
            default=60.0,
            show_default=True,
            help="With --watch: seconds between two scans of the folder.",
        ),
        click.option(
            "--settle-s",
            type=click.FloatRange(0),
            default=5.0,
            show_default=True,
            help="With --watch: seconds without a change in the folder before what is in it counts.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def plan_of(context: click.Context, options: dict[str, Any]) -> "Plan":
    """Raises `UsageError` on options that do not go with --watch."""
    from training.publishing.watch import Plan

    for name in ("resume", "fresh", "as_json"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = {"as_json": "--json"}.get(name, f"--{name}")
            raise click.UsageError(f"{option} cannot be given with --watch", context)
    if not options["data"].is_dir():
        raise click.UsageError(f"--watch needs a folder, which {options['data']} is not", context)
    return Plan(options["min_new"], options["every_s"], options["settle_s"])
