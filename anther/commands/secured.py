"""Options of commands that ask a server: TLS, and a token, which never stands on a command line for `ps` to show."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from anther.client.security import TlsOption

_TOKEN = "ANTHER_TOKEN"  # noqa: S105 - the variable's name
_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)

Command = Callable[..., Any]


def secured(command: Command) -> Command:
    """The command gets `tls` and `token`, as `Client` takes them."""

    @functools.wraps(command)
    def run(
        *arguments: Any, tls: bool | None, tls_ca: Path | None, tls_name: str, token_file: Path | None, **options: Any
    ) -> Any:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # errors have what its lines would say; before it is imported
        certificate, key = options.pop("tls_cert"), options.pop("tls_key")
        chosen = _tls(tls, tls_ca, (certificate, key), tls_name)
        return command(*arguments, tls=chosen, token=_token(token_file), **options)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


_OPTIONS = (
    click.option("--tls/--no-tls", default=None, envvar="ANTHER_TLS", show_envvar=True, show_default="with --tls-…",
                 help="Encrypt, and make sure of the server; --no-tls lets a token travel in plain text."),
    click.option("--tls-ca", type=_FILE, envvar="ANTHER_TLS_CA", show_envvar=True, show_default="public ones",
                 help="Authorities that are believed (PEM)."),
    click.option("--tls-cert", type=_FILE, show_default="none", help="The client's own certificate (PEM)."),
    click.option("--tls-key", type=_FILE, show_default="none", help="Key of that certificate (PEM)."),
    click.option("--tls-name", default="", show_default="the target's host", help="Name in the server's certificate."),
    click.option("--token-file", type=_FILE, envvar="ANTHER_TOKEN_FILE", show_envvar=True,
                 show_default=f"the variable {_TOKEN}", help="File with the token, which the server's operator gave."),
)  # fmt: skip


def _tls(chosen: bool | None, ca: Path | None, own: tuple[Path | None, Path | None], name: str) -> "TlsOption":
    from anther.client.security import Tls

    if ca is None and own == (None, None) and not name:
        return chosen
    if chosen is False:
        raise click.UsageError("--no-tls and the options of TLS exclude each other")
    return Tls(ca, *own, name)


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(_TOKEN, "").strip()
    return file.read_text(errors="replace").strip()
