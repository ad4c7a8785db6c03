"""How `anther models` shows what it found: tables for people, one JSON document for programs."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bundle.policy import ServingPolicy
from bundle.repository import Bundle
from service.commands.catalogue import Entry, Version, accuracy, facts, version_record
from service.versions.loader import LiveModel

_FILE_WIDTH = 160
_NEXT_LOOK = "A running server takes this over at its next look at the folder (serve --watch-s), or at once on SIGHUP."


def write_entries(entries: Sequence[Entry], root: Path, as_json: bool) -> None:
    if as_json:
        _write_json([_entry_record(entry) for entry in entries])
        return
    table = _table("model", "version", "serves as", "top-1 (95 %)", "size", "created", "state")
    for entry in entries:
        for version in reversed(entry.versions):
            table.add_row(entry.name, str(version.number), ", ".join(version.roles), *_version_cells(version))
    console = _console()
    if entries:
        console.print(table)
    else:
        console.print(f"no models in {root}; `anther retrain` makes one", markup=False, soft_wrap=True)
    for entry in entries:
        if entry.policy_error or not entry.policy.loaded:
            remark = entry.policy_error or f"{entry.name} is out of service; `anther models load {entry.name}`"
            console.print(Text(remark, "yellow"), soft_wrap=True)


def write_manifest(bundle: Bundle, as_json: bool) -> None:
    """`bundle` is whole, or it could not have been opened."""
    if as_json:
        _write_json({"version": bundle.version, **dataclasses.asdict(bundle.manifest)})
        return
    table = _table("", f"{bundle.name}/{bundle.version}")
    for name, text in facts(bundle.manifest).items():
        table.add_row(Text(name, "bold"), Text(text))
    for file, digest in bundle.manifest.files.items():
        size = (bundle.path / file).stat().st_size
        table.add_row(Text(file, "bold"), Text(f"{_megabytes(size)}, SHA-256 {digest}"))
    _console().print(table)


def write_proof(model: LiveModel, as_json: bool) -> None:
    record: dict[str, Any] = {
        "model": model.name,
        "version": model.version,
        "ok": True,
        "reason": "",
        "execution_provider": model.engine.provider,
        "precision": model.precision,
        "batch_sizes": list(model.engine.batch_sizes),
        "largest_logit_difference": model.golden_difference,
        "load_s": round(model.load_s, 3),
    }
    if as_json:
        _write_json(record)
        return
    click.echo(
        f"{model.name}/{model.version} is sound: every file as published, golden pictures equal on "
        f"{model.engine.provider} in {model.precision}, "
        f"largest logit difference {model.golden_difference:.2e}, {model.load_s:.2f} s"
    )


def write_refusal(name: str, version: int, reason: str) -> None:
    _write_json({"model": name, "version": version, "ok": False, "reason": reason})


def write_policy(entry: Entry, stable: int, as_json: bool) -> None:
    """After a change, with the version that is stable by it, 0 where none can be."""
    if as_json:
        _write_json({"model": entry.name, "stable": stable, "policy": dataclasses.asdict(entry.policy)})
        return
    click.echo(f"{entry.name}: {_sentence(entry.policy, stable)}. {_NEXT_LOOK}")


def write_passed_over(version: int, reason: str) -> None:
    click.echo(f"version {version} is passed over, as a server would refuse it: {reason}", err=True)


def _sentence(policy: ServingPolicy, stable: int) -> str:
    if not policy.loaded:
        return "out of service"
    how = {"latest": "the latest", "pinned": "pinned", "all": "all others answer by number"}[policy.versions]
    parts = {"answers": policy.canary, "computes copies of": policy.shadow}
    trials = [f"version {part.version} {does} {part.share:.4g} of the requests" for does, part in parts.items() if part]
    answers = f"version {stable} is stable ({how})" if stable else "every version would be refused"
    return "; ".join([answers, *trials])


def _entry_record(entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.name,
        "stable": entry.stable,
        "policy": dataclasses.asdict(entry.policy),
        "policy_error": entry.policy_error,
        "versions": [version_record(version) for version in entry.versions],
    }


def _version_cells(version: Version) -> tuple[Text, ...]:
    """Never as markup: reasons name files, and may hold brackets."""
    size = Text(_megabytes(version.size), justify="right")
    if version.bundle is None:
        return Text("–"), size, Text("–"), Text(f"damaged: {version.reason}", "red")
    manifest = version.bundle.manifest
    return Text(accuracy(manifest)), size, Text(manifest.provenance.created[:10]), Text("whole", "green")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    return table


def _console() -> Console:
    """A file or a pipe has no width that lines must fit in."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def _write_json(record: Any) -> None:
    click.echo(json.dumps(record))
