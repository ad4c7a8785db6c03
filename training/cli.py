"""`anther train`, `evaluate`, `export` and `retrain`: options in, one pipeline call, a summary out.

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
    from bundle.manifest import Precision
    from training.run import Run

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


def _recipe_options(command: F) -> F:
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


def _machine_options(command: F) -> F:
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


def _training_options(command: F) -> F:
    options = [
        click.option("--data", type=_FOLDER, help="Folder with one subfolder of photos per class; needed to start."),
        click.option("--name", help="Name of the model (a-z, 0-9, '.', '_', '-'); needed to start."),
        click.option(
            "--weights",
            default="imagenet",
            show_default=True,
            help="Where to start: 'imagenet' (downloaded once), 'none', or the PATH of a state_dict.",
        ),
        click.option(
            "--runs", type=_FOLDER, default=Path("runs"), show_default=True, help="Folder for runs and caches."
        ),
        click.option("--resume", type=_FOLDER, help="Finish this run with its own recipe instead of starting one."),
        click.option(
            "--strict", is_flag=True, help="Refuse content that stands under two labels; else it is left out."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _precision_option(name: str) -> Callable[[F], F]:
    return click.option(
        name,
        "export_precision",
        type=click.Choice(["fp32", "fp16"]),
        default="fp32",
        show_default=True,
        help="Arithmetic of the convolutions; fp16 halves the file and is meant for CUDA: on a CPU it is slower.",
    )


_json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead of a table.")


@click.command()
@_training_options
@_recipe_options
@_machine_options
@_json_option
@click.pass_context
def train(context: click.Context, /, *, as_json: bool, **options: Any) -> None:
    """Train a classifier on a folder of photos, and measure it on a test split that training never saw.

    Everything is written to a new folder RUNS/NAME/TIME; a killed run goes on with --resume.
    """
    from training import summary

    run = _train(context, options)
    summary.show_run(run, None, as_json=as_json)


@click.command()
@_training_options
@_recipe_options
@_machine_options
@click.option("--models", type=_FOLDER, default=Path("models"), show_default=True, help="Where to publish the bundle.")
@_precision_option("--export-precision")
@_json_option
@click.pass_context
def retrain(
    context: click.Context, /, *, as_json: bool, models: Path, export_precision: "Precision", **options: Any
) -> None:
    """Train, export, verify and publish the next version of a model: all the way from photos to MODELS/NAME/VERSION."""
    from training import pipeline, summary
    from training.progress import Terminal

    run = _train(context, options)
    folder = pipeline.export(run, None, _machine(options), Terminal(), export_precision)
    summary.show_run(run, pipeline.publish(folder, models), as_json=as_json)


@click.command()
@click.argument("source", metavar="BUNDLE|RUN", type=_FOLDER)
@click.option(
    "--data", type=_FOLDER, help="Folder with one subfolder of photos per class.  [default: a run's test split]"
)
@_machine_options
@_json_option
def evaluate(source: Path, data: Path | None, as_json: bool, **options: Any) -> None:
    """Measure a bundle or a run on photos whose classes are known: top-1 with a 95 % interval, and each class."""
    from training import pipeline, summary
    from training.progress import Terminal

    found = pipeline.evaluate_any(source, data, _machine(options), Terminal())
    summary.show_evaluation(found, as_json=as_json)


@click.command()
@click.argument("run", metavar="RUN", type=_FOLDER)
@click.option("--output", type=_FOLDER, help="Folder of the bundle; it must not exist.  [default: RUN/bundle]")
@_precision_option("--precision")
@_machine_options
@_json_option
def export(run: Path, output: Path | None, export_precision: "Precision", as_json: bool, **options: Any) -> None:
    """Turn a finished run into a bundle, and prove that ONNX Runtime answers as torch does."""
    from training import pipeline, summary
    from training.progress import Terminal
    from training.run import Run

    folder = pipeline.export(Run(run), output, _machine(options), Terminal(), export_precision)
    summary.show_bundle(folder, as_json=as_json)


def _train(context: click.Context, options: dict[str, Any]) -> "Run":
    if options["resume"] is not None:
        _refuse_with_resume(context)
    elif options["data"] is None or options["name"] is None:
        raise click.UsageError("--data and --name are needed, or --resume RUN", context)

    from training import pipeline
    from training.progress import Terminal
    from training.run import Run

    if options["resume"] is not None:
        return pipeline.resume(Run(options["resume"]), _machine(options), Terminal())
    try:
        recipe = Recipe(**{name: options[name] for name in _FIELDS})
    except RecipeInvalid as exc:
        raise click.UsageError(str(exc), context) from exc
    request = pipeline.Request(
        options["data"], options["name"], options["weights"], options["runs"], strict=options["strict"]
    )
    return pipeline.train(request, recipe, _machine(options), Terminal())


def _refuse_with_resume(context: click.Context) -> None:
    for name in ("data", "name", "weights", "runs", "strict", *_FIELDS):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} cannot be given with --resume: the run keeps its own", context)


def _machine(options: dict[str, Any]) -> Machine:
    return Machine(options["device"], options["workers"])
