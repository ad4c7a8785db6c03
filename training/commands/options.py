"""Options that several commands share, and what becomes of them.

Imports nothing heavy before a command runs, so that `--help` answers at once.
"""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from training.config import Machine, Recipe
from training.errors import RecipeInvalid

if TYPE_CHECKING:
    from training.run import Run

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)
_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


def recipe_options(command: F) -> F:
    """One option per field of `Recipe`, with its text and default."""
    hints = typing.get_type_hints(Recipe)
    for name, field in reversed(_FIELDS.items()):
        option = "--" + name.replace("_", "-")
        kind = hints[name]
        if kind is bool:
            option = f"{option}/--no-{option[2:]}"
        click_type = click.Choice(typing.get_args(kind)) if typing.get_origin(kind) is Literal else kind
        text = field.metadata["text"]
        command = click.option(option, name, type=click_type, default=field.default, show_default=True, help=text)(
            command
        )
    return command


def machine_options(command: F) -> F:
    device = click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute; cuda fails where there is none.",
    )
    workers = click.option(
        "--workers",
        type=click.IntRange(0),
        default=None,
        show_default="one per core",
        help="Processes that read and augment photos; 0 reads in the trainer itself.",
    )
    return device(workers(command))


def training_options(command: F) -> F:
    options = [
        click.option("--data", type=FOLDER, help="Folder with one subfolder of photos per class; needed to start."),
        click.option("--name", help="Name of the model (a-z, 0-9, '.', '_', '-'); needed to start."),
        click.option(
            "--weights",
            default="imagenet",
            show_default=True,
            help="Where to start: 'imagenet' (downloaded once), 'none', or the PATH of a state_dict.",
        ),
        click.option(
            "--runs", type=FOLDER, default=Path("runs"), show_default=True, help="Folder for runs and caches."
        ),
        click.option("--resume", type=FOLDER, help="Finish this run with its own recipe instead of starting one."),
        click.option(
            "--strict", is_flag=True, help="Refuse content that stands under two labels; else it is left out."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def precision_option(name: str) -> Callable[[F], F]:
    return click.option(
        name,
        "export_precision",
        type=click.Choice(["fp32", "fp16"]),
        default="fp32",
        show_default=True,
        help="Arithmetic of the convolutions; fp16 halves the file and is meant for CUDA: on a CPU it is slower.",
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")


def trained(context: click.Context, options: dict[str, Any]) -> "Run":
    if options["resume"] is not None:
        _refuse_with_resume(context)
    elif options["data"] is None or options["name"] is None:
        raise click.UsageError("--data and --name are needed, or --resume RUN", context)

    from training import pipeline
    from training.progress import Terminal
    from training.run import Run

    if options["resume"] is not None:
        return pipeline.resume(Run(options["resume"]), machine(options), Terminal())
    try:
        recipe = Recipe(**{name: options[name] for name in _FIELDS})
    except RecipeInvalid as exc:
        raise click.UsageError(str(exc), context) from exc
    request = pipeline.Request(
        options["data"], options["name"], options["weights"], options["runs"], strict=options["strict"]
    )
    return pipeline.train(request, recipe, machine(options), Terminal())


def _refuse_with_resume(context: click.Context) -> None:
    for name in ("data", "name", "weights", "runs", "strict", *_FIELDS):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} cannot be given with --resume: the run keeps its own", context)


def machine(options: dict[str, Any]) -> Machine:
    return Machine(options["device"], options["workers"])
