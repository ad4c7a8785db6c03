"""`anther sign`: sign a version with the reference tool of OpenSSF Model Signing."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.commands.options import FOLDER

if TYPE_CHECKING:
    from bundle.repository import Bundle

_PEM = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Sign a version, so that servers can tell who published it.")
@click.argument("version", metavar="NAME/VERSION|FOLDER")
@click.option("--key", required=True, type=_PEM, help="Private key (PEM): ECDSA on P-256, P-384 or P-521.")
@click.option("--certificate", type=_PEM, help="The signer's certificate for that key (PEM); without it, only those "
              "who have the public key can check.")  # fmt: skip
@click.option("--certificate-chain", type=_PEM, multiple=True, help="Certificates between it and the trusted one.")
@click.option("--models", "root", default=Path("models"), show_default=True, envvar="ANTHER_MODELS", show_envvar=True,
              type=FOLDER, help="Folder of models/<name>/<version>/.")  # fmt: skip
def sign(version: str, key: Path, certificate: Path | None, certificate_chain: tuple[Path, ...], root: Path) -> None:
    """Sign every file of a version: NAME/VERSION of a folder of models, or the version's own folder.

    The signature is a Sigstore bundle, NAME/VERSION.sig beside the version's folder. An earlier one is replaced.
    """
    if certificate_chain and certificate is None:
        raise click.UsageError("--certificate-chain goes with --certificate")

    from bundle.repository import signature_of

    folder = Path(version) if Path(version).is_dir() else root / version
    bundle = _open(folder.resolve())
    _sign(bundle, key, certificate, certificate_chain)
    click.echo(f"{bundle.name}/{bundle.version} is signed: {signature_of(bundle.path)}")


def _open(folder: Path) -> "Bundle":
    """What is damaged is not signed. Raises what `Repository.open` raises."""
    from bundle.repository import Repository
    from training.errors import SigningFailed

    if not folder.name.isdecimal():
        raise SigningFailed(folder, "a version is a folder with a number, as models/flowers/3")
    return Repository(folder.parent.parent).open(folder.parent.name, int(folder.name))


def _sign(bundle: "Bundle", key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    from model_signing import hashing, signing

    from anther.files import replacing
    from bundle.repository import signature_of
    from training.errors import SigningFailed

    every_file = hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)
    config = signing.Config().set_hashing_config(every_file)
    try:
        if certificate is None:
            config.use_elliptic_key_signer(private_key=key)
        else:
            config.use_certificate_signer(
                private_key=key, signing_certificate=certificate, certificate_chain=chain or (certificate,)
            )
        with replacing(signature_of(bundle.path)) as temporary:
            config.sign(bundle.path, temporary)
    except Exception as exc:  # whatever the reference tool raises
        raise SigningFailed(bundle.path, str(exc) or type(exc).__name__) from exc
