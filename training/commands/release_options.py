"""Options of publishing a trained run: the repository, the gate and the precision."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from training.commands.options import FOLDER, int8_option, precision_option
from training.errors import RecipeInvalid
from training.publishing.gate_policy import GatePolicy

if TYPE_CHECKING:
    from training.publishing.release import Release

F = TypeVar("F", bound=Callable[..., Any])

_FIELDS = {field.name: field for field in dataclasses.fields(GatePolicy)}


def release_options(command: F) -> F:
    """--models, --gate and one option per field of `GatePolicy`, with its text and default, and --export-precision."""
    command = precision_option("--export-precision")(int8_option(command))
    for name, field in reversed(_FIELDS.items()):
        option = "--" + name.replace("_", "-")
        flag = isinstance(field.default, bool)
        command = click.option(
            option,
            name,
            is_flag=flag,
            type=None if flag else float,
            default=field.default,
            show_default=not flag,
            help=field.metadata["text"],
        )(command)
    gate = click.option(
        "--gate/--no-gate",
        default=True,
        show_default=True,
        help="Publish only what is no worse than the version in service on the same photos.",
    )
    models = click.option(
        "--models", type=FOLDER, default=Path("models"), show_default=True, help="Where to publish the bundle."
    )
    return models(gate(command))


def release_of(context: click.Context, options: dict[str, Any], before: "Release | None" = None) -> "Release":
    """The release that the options describe. For a resumed run, `before` supplies what the options leave out."""
    from training.publishing.release import Release

    said = {name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    names = set(options) if before is None else said
    start = before or Release(options["models"])
    try:
        policy = dataclasses.replace(
            start.gate or GatePolicy(), **{name: options[name] for name in _FIELDS if name in names}
        )
    except RecipeInvalid as exc:
        raise click.UsageError(str(exc), context) from exc
    gated = options["gate"] if "gate" in names else start.gate is not None or bool(said & set(_FIELDS))
    return Release(
        options["models"] if "models" in names else start.models,
        policy if gated else None,
        options["export_precision"] if "export_precision" in names else start.precision,
        options["int8"] if "int8" in names else start.int8,
    )
