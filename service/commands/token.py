"""`anther token`: make, list and revoke the tokens of a file. A running server follows the file within seconds."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from anther import files
from service.identity.tokens import NAME, OF_NAME, SCOPES, Token, digest, dumped, generate, parse, read

_MODE = 0o600  # of a new file; one that is replaced passes on its own
_FILE = click.option("--tokens", "path", required=True, envvar="ANTHER_TOKENS", show_envvar=True,
                     type=click.Path(dir_okay=False, path_type=Path), help="The file of tokens.")  # fmt: skip
_RATE = click.FloatRange(0, min_open=True)


@dataclass
class _File:
    """The tokens of a file, to be changed while its folder is locked."""

    path: Path
    tokens: tuple[Token, ...]

    def write(self, tokens: tuple[Token, ...]) -> None:
        """In one step, readable by its owner alone unless somebody has allowed others."""
        with files.replacing(self.path) as temporary:
            temporary.touch(_MODE)
            if self.path.exists() and os.geteuid() == 0:
                found = self.path.stat()
                os.chown(temporary, found.st_uid, found.st_gid)  # the server's, which must go on reading it
            temporary.write_bytes(dumped(tokens))


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """A new file has no tokens. Raises `TokensInvalid`."""
    path = path.resolve()
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", param_hint="'--tokens'")
    with files.locked_folder(path.parent):
        yield _File(path, parse(read(path), path) if path.exists() else ())


@click.group(short_help="Make, list and revoke the tokens of callers.")
def token() -> None:
    """Make, list and revoke tokens, which callers of `anther serve --tokens FILE` need."""


@token.command(short_help="Make a token and print it, this once.")
@click.argument("name")
@_FILE
@click.option("--scope", "scopes", multiple=True, default=("classify", "explain", "models"), show_default=True,
              type=click.Choice(SCOPES), help="What it is for; may be given several times.")  # fmt: skip
@click.option("--model", "models", multiple=True, show_default="all", help="Which models; may be given several times.")
@click.option("--requests-per-second", type=_RATE, show_default="no limit", help="Requests a second, on average.")
@click.option("--images-per-second", type=_RATE, show_default="no limit", help="Images a second, on average.")
@click.option("--in-flight", type=click.IntRange(1), show_default="no limit",
              help="Calls at once; a stream is one.")  # fmt: skip
@click.option("--days", type=_RATE, show_default="no limit", help="Days until it expires.")
def new(name: str, path: Path, days: float | None, **limits: Any) -> None:
    """Make a token with a NAME, which logs and metrics show. The token itself is printed on standard output.

    The file keeps its SHA-256 digest alone: nobody can show the token again.
    """
    if not NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r}; expected {OF_NAME}", param_hint="'NAME'")
    secret = generate()
    expires = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    made = Token(name, digest(secret), expires=expires, **limits)
    with _opened(path) as file:
        if any(each.name == name for each in file.tokens):
            raise click.BadParameter(f"there is a token '{name}' in {path}; revoke it first", param_hint="'NAME'")
        after = dumped((*file.tokens, made))
        file.write(parse(after, file.path))
    click.echo(f"the token '{name}' is in {path}; it is shown this once:", err=True)
    click.echo(secret)


@token.command("list", short_help="Show what each token may do.")
@_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def list_(path: Path, as_json: bool) -> None:
    """Show the tokens of a file and what each may do; not the tokens themselves, which it does not have."""
    tokens = parse(read(path), path)
    if as_json:
        entries = json.loads(dumped(tokens))["tokens"]
        for entry in entries:
            del entry["sha256"]
        click.echo(json.dumps(entries, indent=2))
    elif tokens:
        from anther.tables import write_table

        headings = ("name", "scopes", "models", "requests/s", "images/s", "in flight", "expires")
        write_table(headings, [_cells(each) for each in tokens], numbers=headings[3:6])
    else:
        click.echo(f"no tokens in {path}; `anther token new` makes one")


@token.command(short_help="Take a token out of the file.")
@click.argument("name")
@_FILE
def revoke(name: str, path: Path) -> None:
    """Take the token NAME out of the file. Calls with it are refused as soon as the server has read that."""
    with _opened(path) as file:
        left = tuple(each for each in file.tokens if each.name != name)
        if left == file.tokens:
            known = ", ".join(each.name for each in left) or "none"
            raise click.BadParameter(f"there is no token '{name}' in {path}, only {known}", param_hint="'NAME'")
        file.write(left)
    click.echo(f"the token '{name}' is revoked", err=True)


def _cells(token: Token) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    return (
        token.name,
        ", ".join(token.scopes),
        ", ".join(token.models) or "all",
        number(token.requests_per_second),
        number(token.images_per_second),
        number(token.in_flight),
        _when(token.expires),
    )


def _when(expires: datetime | None) -> str:
    if expires is None:
        return "never"
    return f"{expires:%Y-%m-%d %H:%M} UTC" + (", expired" if expires <= datetime.now(UTC) else "")
