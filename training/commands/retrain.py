"""`anther retrain`: all the way from photos to a published version, once or whenever new photos have arrived."""

from typing import TYPE_CHECKING, Any

import click

from training.commands.headings import Grouped
from training.commands.options import (
    json_option,
    machine,
    machine_options,
    recipe_of,
    recipe_options,
    request_of,
    require_start,
    training_options,
)
from training.commands.processes import several_processes
from training.commands.release_options import release_of, release_options
from training.commands.watch_options import plan_of, watch_options

if TYPE_CHECKING:
    from bundle.repository import Bundle
    from training.runs.run import Run


@click.command(cls=Grouped, short_help="From photos to a published version that is no worse.")
@training_options
@click.option("--fresh", is_flag=True, help="Begin anew, also where the same retrain was left unfinished.")
@release_options
@watch_options
@recipe_options
@machine_options
@json_option
@click.pass_context
@several_processes
def retrain(context: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Train, export, verify, compare and publish the next version of a model: from photos to MODELS/NAME/VERSION.

    The version in service answers the same test photos: what is worse than it is not published, and the command ends
    with exit code 1 and the reasons. A killed retrain resumes when the same command is given again, or with --resume.
    """
    require_start(context, options)
    if options["watch"]:
        return _watch(context, options)

    from training.commands import summary
    from training.publishing.attempt import ends_on_sigterm

    with ends_on_sigterm():
        run, published = _retrained(context, options)
    return summary.show_run(run, published, as_json=as_json)


def _retrained(context: click.Context, options: dict[str, Any]) -> "tuple[Run, Bundle]":
    from training.progress import Terminal
    from training.publishing import retrain as retraining
    from training.publishing import unfinished
    from training.runs.run import Run

    if options["resume"] is None:
        request, recipe = request_of(options), recipe_of(context, options)
        wanted = release_of(context, options)
        return retraining.retrain(request, recipe, machine(options), wanted, Terminal(), fresh=options["fresh"])
    run = Run(options["resume"])
    wanted = release_of(context, options, unfinished.release_of(run))
    return run, retraining.resume(run, machine(options), wanted, Terminal())


def _watch(context: click.Context, options: dict[str, Any]) -> None:
    from training.progress import Terminal
    from training.publishing import watch
    from training.publishing.attempt import Attempt

    request, plan = request_of(options), plan_of(context, options)
    attempt = Attempt(request, recipe_of(context, options), machine(options), release_of(context, options))
    watch.watch(request.data, request.runs / request.name, attempt.start, plan, Terminal())
