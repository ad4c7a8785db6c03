"""`anther models`: list, prove, pin, promote and roll back the versions of a folder.

Changes go into a model's serving.json; a running server takes them over at its next rescan of the folder, or at once on
SIGHUP.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from service.config import MODELS_DEFAULT, Device, PrecisionChoice, Settings, default_models

if TYPE_CHECKING:
    from bundle.policy import ServingPolicy
    from bundle.repository import Repository
    from service.commands.catalogue import Entry, Refusal
    from service.commands.models_view import Evidence
    from service.versions.loader import LiveModel

Command = Callable[..., Any]
Change = Callable[["ServingPolicy", int], "ServingPolicy"]
"""The next policy, from the present one and the version that is stable by it, 0 where none is."""

_NUMBER = click.IntRange(1)
_SHARE = click.FloatRange(0, 1)


class _Pin(click.ParamType[Any]):
    """A version number, or one of the two words."""

    name = "version"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value in ("latest", "all") else _NUMBER.convert(value, param, ctx)


@dataclass(frozen=True, slots=True)
class _Folder:
    """The folder of models, and how results are printed."""

    root: Path
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What is checked beside the golden pictures. `trust` is a PEM file, '' where nobody is believed."""

    signature: bool
    trust: str
    attestation: Path | None

    def asked_of(self, server: Settings) -> Settings:
        return dataclasses.replace(server, require_signature=self.trust) if self.signature else server


def _common(command: Command) -> Command:
    """Options of the folder and of the output; the command gets them as `folder`."""

    @functools.wraps(command)
    def run(*arguments: Any, root: Path, as_json: bool, **options: Any) -> Any:
        return command(*arguments, folder=_Folder(root, as_json), **options)

    as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
    folder = click.option(
        "--models", "root", default=default_models, show_default=MODELS_DEFAULT, envvar="ANTHER_MODELS",
        show_envvar=True, type=click.Path(file_okay=False, exists=True, path_type=Path),
        help="Folder of models/<name>/<version>/.",
    )  # fmt: skip
    return folder(as_json(run))


def _engine(command: Command) -> Command:
    """Options of the engine that proves versions; the command gets the settings of such a server as `server`."""

    @functools.wraps(command)
    def run(*arguments: Any, device: Device, precision: PrecisionChoice, **options: Any) -> Any:
        return command(*arguments, server=Settings(device=device, precision=precision), **options)

    on_device = click.option(
        "--device", default=Settings().device, show_default=True, type=click.Choice(get_args(Device)),
        help="Where golden pictures are replayed; 'cuda' fails without a GPU.",
    )  # fmt: skip
    in_precision = click.option(
        "--precision", default=Settings().precision, show_default=True, envvar="ANTHER_PRECISION", show_envvar=True,
        type=click.Choice(get_args(PrecisionChoice)), help="What they are replayed in: that of the server in question.",
    )  # fmt: skip
    return on_device(in_precision(run))


def _verified(command: Command) -> Command:
    """The engine's options and a switch; with --no-verify the command gets None as `server`."""

    @functools.wraps(command)
    def run(*arguments: Any, prove: bool, require_signature: str, server: Settings, **options: Any) -> Any:
        server = dataclasses.replace(server, require_signature=require_signature)
        return command(*arguments, server=server if prove else None, **options)

    option = click.option("--verify/--no-verify", "prove", default=True, show_default=True,
                          help="Prove versions on their golden pictures first, as a server will.")  # fmt: skip
    return _engine(_SIGNATURE(option(run)))


_SIGNATURE = click.option(
    "--require-signature", default="", envvar="ANTHER_REQUIRE_SIGNATURE", show_envvar=True, metavar="FILE",
    help="Whose signature a version needs (PEM), as for the server in question.",
)  # fmt: skip


@click.group()
def models() -> None:
    """List, prove, pin, promote and roll back the models of a folder."""


@models.command("list", short_help="Show every model and version, and which of them serve.")
@_common
def list_(folder: _Folder) -> None:
    """Every model and version: what it is worth, and what the policy makes of it."""
    from service.commands import catalogue, models_view

    found = catalogue.entries(_repository(folder.root))
    models_view.write_entries(found, folder.root, folder.as_json)


@models.command(short_help="Show what a version's manifest says.")
@click.argument("name")
@click.argument("version", type=_NUMBER, required=False)
@_common
def show(name: str, version: int | None, folder: _Folder) -> None:
    """What the manifest of NAME says of VERSION, by default the newest."""
    from service.commands import models_view

    models_view.write_manifest(_repository(folder.root).open(name, version), folder.as_json)


def _evidence(command: Command) -> Command:
    """Options of what is checked beside the golden pictures; the command gets them as `evidence`."""

    @functools.wraps(command)
    def run(
        *arguments: Any,
        signature: bool,
        public_key: str,
        certificate_chain: str,
        attestation: Path | None,
        **rest: Any,
    ) -> Any:
        if public_key and certificate_chain:
            raise click.UsageError("give one of --public-key and --certificate-chain")
        trust = public_key or certificate_chain
        if signature and not trust:
            raise click.UsageError("--signature needs --public-key or --certificate-chain")
        return command(*arguments, evidence=_Evidence(signature, trust, attestation), **rest)

    options = (
        click.option("--signature", is_flag=True, help="The version must be signed by a key or certificate below."),
        click.option("--public-key", default="", metavar="FILE", help="Public keys that are believed (PEM)."),
        click.option("--certificate-chain", default="", metavar="FILE",
                     help="Certificates that are believed (PEM): authorities, or a signer's own."),
        click.option("--attestation", type=click.Path(dir_okay=False, path_type=Path),
                     help="Read what a host said of this version, and whether a key above has signed it."),
    )  # fmt: skip
    for option in reversed(options):
        run = option(run)
    return run


@models.command(short_help="Make every check that a server makes before it serves.")
@click.argument("name")
@click.argument("version", type=_NUMBER, required=False)
@_evidence
@_engine
@_common
@click.pass_context
def verify(
    context: click.Context, /, name: str, version: int | None, server: Settings, evidence: "_Evidence", folder: _Folder
) -> None:
    """Open VERSION of NAME, by default the newest, and replay its golden pictures, as a server does before it serves.

    Exit code 1 where a server of that device and precision would refuse it.
    """
    from bundle.errors import BundleRefused
    from service.commands import models_view
    from service.errors import AttestationRefused

    repository = _repository(folder.root)
    name, version = _named(repository, name, version)
    try:
        model = _prove(repository, name, version, evidence.asked_of(server))
        found = _said_of(model, evidence)
    except (BundleRefused, AttestationRefused) as exc:
        if not folder.as_json:
            raise
        models_view.write_refusal(name, version, str(exc))
        context.exit(1)
    models_view.write_proof(model, found, folder.as_json)


@models.command(short_help="State that this host has proven a version.")
@click.argument("name")
@click.argument("version", type=_NUMBER, required=False)
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Private key to sign with (PEM).")
@click.option("--output", default="-", show_default=True, type=click.Path(dir_okay=False, allow_dash=True),
              help="File of the statement; - is standard output.")  # fmt: skip
@_engine
@_common
def attest(name: str, version: int | None, key: Path | None, output: str, server: Settings, folder: _Folder) -> None:
    """Replay the golden pictures of VERSION of NAME, by default the newest, and state what came out on this host.

    An in-toto statement, which `anther models verify --attestation` reads; with --key in a signed envelope.
    """
    from anther import files
    from service.commands import models_view
    from service.signatures import attestation

    repository = _repository(folder.root)
    model = _prove(repository, *_named(repository, name, version), server)
    text = attestation.statement(model.bundle, models_view.attested(model))
    if key is not None:
        text = attestation.signed(text, key)
    if output == "-":
        click.echo(text, nl=False)
    else:
        files.replace(Path(output), text.encode())


@models.command(short_help="Serve one version whatever is published, or follow the latest.")
@click.argument("name")
@click.argument("version", type=_Pin(), metavar="VERSION|latest|all")
@_verified
@_common
def pin(name: str, version: Any, server: Settings | None, folder: _Folder) -> None:
    """Serve exactly VERSION of NAME whatever is published, or again the latest, or all versions by number."""

    def change(policy: "ServingPolicy", stable: int) -> "ServingPolicy":
        if version == "latest":
            return policy.following_latest()
        if version == "all":
            return dataclasses.replace(policy, versions="all")
        return policy.pinned_to(version, stable)

    refusal = _proven(folder.root, name, server) if server is not None and isinstance(version, int) else None
    _edit(folder, name, change, refusal, version)


@models.command(short_help="Make a version the stable one, or put it on trial.")
@click.argument("name")
@click.argument("version", type=_NUMBER, required=False)
@click.option("--canary", type=_SHARE, help="Have it answer this share of the requests instead, 0 to 1; 0 ends that.")
@click.option("--shadow", type=_SHARE, help="Have it compute copies of this share instead, 0 to 1; 0 ends that.")
@_verified
@_common
def promote(
    name: str,
    version: int | None,
    canary: float | None,
    shadow: float | None,
    server: Settings | None,
    folder: _Folder,
) -> None:
    """Make VERSION of NAME the stable one, or put it on trial. Without VERSION: the one that is on trial now."""
    if canary is not None and shadow is not None:
        raise click.UsageError("a version is on trial as canary or as shadow; give one of --canary and --shadow")
    version = version or _on_trial(folder.root, name, "shadow" if shadow is not None else "canary")

    def change(policy: "ServingPolicy", stable: int) -> "ServingPolicy":
        if canary is not None:
            return policy.with_canary(version, canary) if canary else policy.without_canary()
        if shadow is not None:
            return policy.with_shadow(version, shadow) if shadow else policy.without_shadow()
        return policy.promoted(version, stable)

    ends = 0.0 in (canary, shadow)
    refusal = _proven(folder.root, name, server) if server is not None and not ends else None
    _edit(folder, name, change, refusal, version)


@models.command(short_help="Serve the version that was stable before.")
@click.argument("name")
@_verified
@_common
def rollback(name: str, server: Settings | None, folder: _Folder) -> None:
    """Serve the version of NAME that was stable before, or else the next older one.

    Versions that a server would refuse are passed over. Exit code 1 where none is left.
    """
    from bundle.policy import read_policy
    from service.commands import catalogue

    read_policy(folder.root, name)  # where it is damaged, the earlier stable versions are unknown
    entry = catalogue.entry(_repository(folder.root), name)
    refusal = entry.damage if server is None else _proven(folder.root, name, server)
    versions = _to_return_to(entry, refusal)
    _edit(folder, name, lambda policy, stable: policy.rolled_back(stable, versions), refusal)


@models.command(short_help="Take a model out of service; its files stay.")
@click.argument("name")
@_common
def unload(name: str, folder: _Folder) -> None:
    """Take NAME out of service; its files and the rest of its policy stay."""
    _edit(folder, name, lambda policy, _: policy.unloaded())


@models.command(short_help="Bring a model back into service.")
@click.argument("name")
@_common
def load(name: str, folder: _Folder) -> None:
    """Bring NAME back into service after `unload`."""
    _edit(folder, name, lambda policy, _: policy.reloaded())


def _edit(folder: _Folder, name: str, change: Change, refusal: "Refusal | None" = None, to_prove: int = 0) -> None:
    """`refusal` says which versions may serve, by default the files alone. It must accept the version `to_prove`."""
    from bundle.errors import BundleRefused
    from bundle.policy import edit_policy
    from service.commands import catalogue, models_view

    repository = _repository(folder.root)
    before = catalogue.entry(repository, name)
    if refusal is not None and to_prove and (reason := refusal(to_prove)):
        raise BundleRefused(reason)
    stable = before.serving(refusal or before.damage)
    policy = edit_policy(folder.root, name, lambda policy: change(policy, stable))
    after = dataclasses.replace(before, policy=policy)
    models_view.write_policy(after, after.serving(refusal or after.damage), folder.as_json)


def _to_return_to(entry: "Entry", refusal: "Refusal") -> list[int]:
    """The versions, less those that a rollback passes over. Raises `BundleRefused` where it would find none."""
    from bundle.errors import BundleRefused
    from service.commands import models_view

    stable = entry.serving(refusal)
    versions = [version.number for version in entry.versions]
    for candidate in entry.policy.earlier(stable, versions):
        if not (reason := refusal(candidate)):
            return versions
        models_view.write_passed_over(candidate, reason)
        versions.remove(candidate)
    raise BundleRefused(
        f"{entry.name} has no earlier version that a server would take; name a newer one (`anther models pin "
        f"{entry.name} VERSION`), publish one (`anther retrain`), or end the service (`anther models unload "
        f"{entry.name}`)"
    )


def _on_trial(root: Path, name: str, role: str) -> int:
    from bundle.policy import read_policy

    policy = read_policy(root, name)
    part = policy.shadow if role == "shadow" else policy.canary
    if part is None:
        raise click.UsageError(f"{name} has no {role}; name the VERSION that is meant")
    return part.version


def _proven(root: Path, name: str, settings: Settings) -> "Refusal":
    """Each version is proven once."""
    from bundle.errors import BundleRefused

    repository = _repository(root)

    @functools.cache
    def refusal(version: int) -> str:
        try:
            _prove(repository, name, version, settings)
        except (BundleRefused, OSError) as exc:
            return str(exc)
        return ""

    return refusal


def _prove(repository: "Repository", name: str, version: int, settings: Settings) -> "LiveModel":
    """Raises what `loader.load` raises."""
    from service.assembly import opener
    from service.engines.runtime import check_runtime, usable_device
    from service.versions import loader

    check_runtime()
    open_engine = opener(settings, usable_device(settings.device))
    return loader.load(repository, open_engine, name, version)


def _named(repository: "Repository", name: str, version: int | None) -> tuple[str, int]:
    """Name and number; `name` may have both, as 'flowers/3'."""
    name, _, number = name.partition("/")
    if number and version is None:
        version = _NUMBER(number)
    return name, version or repository.open(name).version


def _said_of(model: "LiveModel", evidence: _Evidence) -> "Evidence":
    """Raises `SignatureInvalid` and its like, or `AttestationRefused`."""
    from service.commands.models_view import Evidence
    from service.signatures import attestation
    from service.signatures.signed import require_signed
    from service.signatures.trust import Trust

    trust = Trust.read(Path(evidence.trust)) if evidence.trust else None
    signer = require_signed(model.bundle, trust) if evidence.signature and trust is not None else ""
    if evidence.attestation is None:
        return Evidence(signer)
    said, witness = attestation.read(evidence.attestation, model.bundle, trust)
    return Evidence(signer, said, witness)


def _repository(root: Path) -> "Repository":
    from bundle.repository import Repository

    return Repository(root)
