"""How `anther models` shows what it found: tables for people, one JSON document for programs."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from anther.tables import Cell, write_rows, write_table
from bundle.policy import ServingPolicy
from bundle.repository import Bundle
from service.commands.catalogue import Entry, Version, accuracy, facts, version_record
from service.versions.loader import LiveModel

_TAKEN_OVER = "A running server follows at its next rescan (--watch-s), or at once on SIGHUP."


def write_entries(entries: Sequence[Entry], root: Path, as_json: bool) -> None:
    if as_json:
        _write_json([_entry_record(entry) for entry in entries])
        return
    if not entries:
        click.echo(f"no models in {root}; `anther retrain` makes one")
        return
    if rows := [_cells(entry, version) for entry in entries for version in reversed(entry.versions)]:
        write_table(("version", "serves as", "top-1 (95 %)", "size", "created", "state"), rows, numbers=("size",))
    for remark in (remark for entry in entries for remark in _remarks(entry)):
        click.secho(remark, fg="yellow")


def write_manifest(bundle: Bundle, as_json: bool) -> None:
    """`bundle` is whole, or it could not have been opened."""
    if as_json:
        _write_json({"version": bundle.version, **dataclasses.asdict(bundle.manifest)})
        return
    write_rows([(f"{bundle.name}/{bundle.version}", ""), *facts(bundle.manifest).items()])
    for file, digest in bundle.manifest.files.items():
        size = (bundle.path / file).stat().st_size
        click.echo(f"{file}, {_megabytes(size)}, SHA-256\n  {digest}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Who signed a version and what a host said of it; empty where that was not asked."""

    signer: str
    attested: dict[str, Any] | None = None
    witness: str = ""  # who signed what the host said

    def record(self) -> dict[str, Any]:
        signature = {"signed_by": self.signer} if self.signer else {}
        said = {} if self.attested is None else {"attestation": {**self.attested, "signed_by": self.witness}}
        return {**signature, **said}

    def rows(self) -> Iterator[tuple[str, str]]:
        if self.signer:
            yield "signed", f"by {self.signer}"
        if self.attested is not None:
            yield "attested", f"{_sayings(self.attested)}; {f'signed by {self.witness}' if self.witness else UNSIGNED}"


UNSIGNED = "nobody's signature was asked for"


def attested(model: LiveModel) -> dict[str, Any]:
    """What golden replay found, for an attestation."""
    return {
        "result": "equal",
        "execution_provider": model.engine.provider,
        "precision": model.precision,
        "batch_sizes": list(model.engine.batch_sizes),
        "largest_logit_difference": model.golden_difference,
        "allowed_logit_difference": model.bundle.manifest.tolerances[model.engine.provider][model.precision],
    }


def write_proof(model: LiveModel, evidence: Evidence, as_json: bool) -> None:
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
        **evidence.record(),
    }
    if as_json:
        _write_json(record)
        return
    click.echo(f"{model.name}/{model.version} is sound: every file as published, golden pictures equal")
    write_rows(
        [
            ("engine", f"{model.engine.provider} in {model.precision}"),
            ("largest logit difference", f"{model.golden_difference:.2e}"),
            ("time to load", f"{model.load_s:.2f} s"),
            *evidence.rows(),
        ]
    )


def _sayings(found: dict[str, Any]) -> str:
    """An attestation comes from outside and may lack anything."""
    host = found.get("host", {})
    return (
        f"{found.get('time')}, {host.get('processor')}: {found.get('precision')}, largest logit difference "
        f"{found.get('largest_logit_difference')}"
    )


def write_refusal(name: str, version: int, reason: str) -> None:
    _write_json({"model": name, "version": version, "ok": False, "reason": reason})


def write_policy(entry: Entry, stable: int, as_json: bool) -> None:
    """After a change, with the version that is stable by it, 0 where none can be."""
    if as_json:
        _write_json({"model": entry.name, "stable": stable, "policy": dataclasses.asdict(entry.policy)})
        return
    click.echo(f"{entry.name}: {_sentence(entry.policy, stable)}.\n{_TAKEN_OVER}")


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


def _cells(entry: Entry, version: Version) -> tuple[Cell, ...]:
    name, roles, size = f"{entry.name}/{version.number}", ", ".join(version.roles), _megabytes(version.size)
    if version.bundle is None:
        return name, roles, "–", size, "–", Text("damaged", "red")
    manifest = version.bundle.manifest
    return name, roles, accuracy(manifest), size, manifest.provenance.created[:10], Text("whole", "green")


def _remarks(entry: Entry) -> Iterator[str]:
    """What stands below the table: why a version is damaged, and why a model does not serve as it should."""
    for version in reversed(entry.versions):
        if version.bundle is None:
            yield f"{entry.name}/{version.number} is damaged: {version.reason}"
    if entry.policy_error:
        yield entry.policy_error
    elif not entry.policy.loaded:
        yield f"{entry.name} is out of service; `anther models load {entry.name}` brings it back"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _write_json(record: Any) -> None:
    click.echo(json.dumps(record))
