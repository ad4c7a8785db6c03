"""The command line: fine-tune an image classifier on your photos, and serve it.

Each command's module is imported when it is asked for, so that serving never imports torch and training never
imports a server.
"""

import importlib
import sys
from typing import Any

import click

from anther import installation, program  # the second, when imported, makes `service` and `training` our own
from anther.errors import AntherError

_COMMANDS = {  # in the order of the help
    "serve": "service.commands.serve",
    "models": "service.commands.models",
    "token": "service.commands.token",
    "classify": "anther.commands.classify",
    "retrain": "training.commands.retrain",
    "train": "training.commands.train",
    "evaluate": "training.commands.evaluate",
    "inspect": "training.commands.inspect",
    "export": "training.commands.export",
    "sign": "training.commands.sign",
    "compare": "training.commands.compare",
    "data": "training.commands.data",
}
_EXTRAS = {  # a module that an extra brings → the extra; "" for those that several bring: then the command decides
    "numpy": "",
    "PIL": "",
    "cryptography": "",
    "opentelemetry": "tracing",
    "grpc_health": "cpu",
    "grpc_reflection": "cpu",
    "httptools": "cpu",
    "msgspec": "cpu",
    "onnxruntime": "cpu",
    "prometheus_client": "cpu",
    "python_multipart": "cpu",
    "starlette": "cpu",
    "uvicorn": "cpu",
    "uvloop": "cpu",
    "model_signing": "signing",
    "OpenSSL": "signing",
    "jinja2": "training",
    "scipy": "training",
    "onnx": "training",
    "onnxscript": "training",
    "torch": "training",
    "torchvision": "training",
    "jwt": "jwt",
    "pyarrow": "parquet",
}


class ExtraMissing(AntherError):
    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this command needs the package '{package}'; run `pip install 'anther[{extra}]'`",
            package=package,
            extra=extra,
        )


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

    def invoke(self, ctx: click.Context) -> Any:
        """Raises `ExtraMissing` where the command meets a package that is not installed."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            extra = _extra_of(exc.name or "", ctx.invoked_subcommand or "")
            if extra is None:  # a mistake of ours is nothing to install
                raise
            raise ExtraMissing(exc.name or "", extra) from exc


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="anther")
def cli() -> None:
    """Fine-tune an image classifier on your own photos and serve it over gRPC and HTTP."""


def main() -> None:
    """Run the command line: exit code 0 done, 1 failed, 2 wrong usage; errors in one line."""
    try:
        installation.check()
        program.check()
        cli(prog_name="anther")
    except AntherError as exc:
        click.echo(f"anther: {' '.join(str(exc).split())}", err=True)
        sys.exit(1)


def _extra_of(module: str, command: str) -> str | None:
    extra = _EXTRAS.get(module.partition(".")[0])
    if extra == "":
        return "training" if _COMMANDS.get(command, "").startswith("training.") else "cpu"
    return extra
