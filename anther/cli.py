"""The command line: fine-tune an image classifier on your photos, and serve it.

Each command's module is imported when it is asked for, so that serving never imports torch and training never
imports a server.
"""

import importlib
import sys

import click

from anther import program  # noqa: F401 - first of all: `service` and `training` must be our own
from anther.errors import AntherError

_COMMANDS = {  # in the order of the help
    "serve": "service.commands.serve",
    "models": "service.commands.models",
    "classify": "anther.commands.classify",
    "retrain": "training.commands.retrain",
    "train": "training.commands.train",
    "evaluate": "training.commands.evaluate",
    "inspect": "training.commands.inspect",
    "export": "training.commands.export",
    "compare": "training.commands.compare",
    "data": "training.commands.data",
}
_EXTRAS = {  # top-level module → the extra that brings it
    "onnxruntime": "cpu",
    "torch": "training",
    "torchvision": "training",
    "onnx": "training",
    "onnxscript": "training",
    "jinja2": "training",
    "pyarrow": "parquet",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command where there is none of that name, as click does for groups that hold their own."""
        if not args[0].startswith("-") and args[0] not in _COMMANDS and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="anther")
def cli() -> None:
    """Fine-tune an image classifier on your own photos and serve it over gRPC."""


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 wrong usage; errors in one line."""
    try:
        cli(prog_name="anther")
    except AntherError as exc:
        sys.exit(_say(str(exc)))
    except ModuleNotFoundError as exc:
        extra = _EXTRAS.get((exc.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(_say(f"this command needs the package '{exc.name}'; run `pip install 'anther[{extra}]'`"))


def _say(message: str) -> int:
    click.echo(f"anther: {' '.join(message.split())}", err=True)
    return 1
