"""Options that several commands share, and the records that they make.

Heavy libraries are imported when a command runs, so that `--help` answers at once.
"""

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.core import ParameterSource

from training.commands.headings import Headed
from training.config import Machine, Recipe, toml
from training.config.recipe import group_of
from training.errors import ConfigInvalid, RecipeInvalid

if TYPE_CHECKING:
    from training.runs.records import TrainingRequest
    from training.runs.run import Run

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)
SOURCE = click.Path(path_type=Path)
"""Photos: a folder with one subfolder per class, or a table of path and label."""
_MAX_CHOICES_WIDTH = 60  # characters that fit on a line of an 80 column terminal beside the option
_HEADINGS = {
    "transfer": "Transfer (what is learned from, and what of it is kept)",
    "optimisation": "Optimisation (how weights move)",
    "augmentation": "Augmentation (what training does to photos; 0 is off)",
    "regularisation": "Regularisation (against learning the photos by heart)",
}
_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


def recipe_options(command: F) -> F:
    """One option per field of `Recipe`, with its text and default, and --config, whose file replaces the defaults."""
    hints = typing.get_type_hints(Recipe)
    for name, field in reversed(_FIELDS.items()):
        option = "--" + name.replace("_", "-")
        kind = hints[name]
        if kind is bool:
            option = f"{option}/--no-{option[2:]}"
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
        text, metavar = field.metadata["text"], None
        if len("|".join(choices)) > _MAX_CHOICES_WIDTH:
            text, metavar = f"{text} One of {', '.join(choices)}.", "NAME"
        command = click.option(
            option,
            name,
            type=click.Choice(choices) if choices else kind,
            default=field.default,
            show_default=True,
            metavar=metavar,
            help=text,
            cls=Headed,
            heading=_HEADINGS[group_of(name)],
        )(command)
    config = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_take_defaults,
        help="TOML file of the settings below; what the command line says goes before it.",
    )
    return config(command)


def _take_defaults(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        context.default_map = toml.read(path)
    except ConfigInvalid as exc:
        raise click.BadParameter(str(exc), context, parameter) from exc


def recipe_of(context: click.Context, options: dict[str, Any]) -> Recipe:
    """The recipe that the command line, the file of --config and the defaults make, in this order of strength."""
    try:
        return Recipe(**{name: options[name] for name in _FIELDS})
    except RecipeInvalid as exc:
        raise click.UsageError(str(exc), context) from exc


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
        click.option(
            "--data",
            type=SOURCE,
            help="Folder with one subfolder of photos per class, or a .csv, .tsv or .parquet table of path and label; "
            "needed to start.",
        ),
        column_options,
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


def column_options(command: F) -> F:
    """What a table of photos calls its columns."""
    path = click.option("--path-column", default="path", show_default=True, help="Column of a table's photos.")
    label = click.option("--label-column", default="label", show_default=True, help="Column of a table's labels.")
    return path(label(command))


def precision_option(name: str) -> Callable[[F], F]:
    return click.option(
        name,
        "export_precision",
        type=click.Choice(["fp32", "fp16"]),
        default="fp32",
        show_default=True,
        help="Arithmetic of the convolutions; fp16 halves the file and is meant for CUDA: on a CPU it is slower.",
    )


int8_option = click.option(
    "--int8/--no-int8",
    default=True,
    show_default=True,
    help="Also write a model for `anther serve --precision int8`: half the time a photo on CPUs that multiply bytes, "
    "some seconds of export, a quarter of the size on top. It is left out where it loses too much on validation.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")


def require_start(context: click.Context, options: dict[str, Any]) -> None:
    """Require the options of a new run, or a run to resume."""
    if options["resume"] is not None:
        _refuse_with_resume(context)
    elif options["data"] is None or options["name"] is None:
        raise click.UsageError("--data and --name are needed, or --resume RUN", context)


def request_of(options: dict[str, Any]) -> "TrainingRequest":
    from training.dataset.tables import Columns
    from training.runs.records import TrainingRequest

    columns = Columns(options["path_column"], options["label_column"])
    return TrainingRequest(
        options["data"], options["name"], options["weights"], options["runs"], options["strict"], columns
    )  # fmt: skip


def trained(context: click.Context, options: dict[str, Any]) -> "Run":
    require_start(context, options)

    from training import pipeline
    from training.progress import Terminal
    from training.runs.run import Run

    if options["resume"] is not None:
        return pipeline.resume(Run(options["resume"]), machine(options), Terminal())
    recipe = recipe_of(context, options)
    return pipeline.train(request_of(options), recipe, machine(options), Terminal())


def _refuse_with_resume(context: click.Context) -> None:
    for name in ("data", "path_column", "label_column", "name", "weights", "runs", "strict", "config", *_FIELDS):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} cannot be given with --resume: the run keeps its own", context)


def machine(options: dict[str, Any]) -> Machine:
    return Machine(options["device"], options["workers"])
