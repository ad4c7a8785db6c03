"""`models/<name>/<version>/`: numeric, write-once versions, each published by one atomic rename.

A reader never sees half a version: files are written into `.staging-…` beside the versions, checked, flushed to disk
and renamed. A crash leaves a staging folder, which no server reads and the next publisher removes.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anther import program
from anther.files import flush_folder, locked_folder, read_regular, remove
from bundle import onnx_file
from bundle.errors import (
    BundleCorrupt,
    BundleRefused,
    ExternalDataRefused,
    ModelNotFound,
    NotPublished,
    VersionNotFound,
)
from bundle.manifest import Manifest, valid_name

MANIFEST, GOLDEN, REPORT = "manifest.json", "golden.npz", "report.html"
MAX_MANIFEST_BYTES = 16 * 2**20  # bytes; a thousand classes take 11 MiB, nearly all of it their confusion matrix
MAX_FILE_BYTES = 2**31 - 1  # bytes; protobuf allows no larger model
_STAGING = ".staging-"
OF_THE_PROGRAM = "it belongs to the installed program, whose next installation replaces it"


@dataclass(frozen=True)
class Bundle:
    """A version whose every file was checked against its digest when it was opened."""

    path: Path
    version: int
    manifest: Manifest
    manifest_sha256: str  # of the whole file `manifest.json`, hexadecimal

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def digests(self) -> dict[str, str]:
        """Every file of the version, the manifest included → its SHA-256, in the order of the names."""
        return dict(sorted({**self.manifest.files, MANIFEST: self.manifest_sha256}.items()))

    def read(self, file: str) -> bytes:
        """A file's bytes, checked again, so that what is used is what was published. Raises `BundleCorrupt`."""
        if file not in self.manifest.files:
            raise BundleCorrupt(
                self.path / file, "not named in the manifest", f"one of {', '.join(self.manifest.files)}"
            )
        return _read_checked(self.path / file, self.manifest.files[file])


def signature_of(version: Path) -> Path:
    """Where the signature of a version's folder lies: beside it, as what is published is never changed."""
    return version.with_name(f"{version.name}.sig")


def open_bundle(path: Path, version: int = 0) -> Bundle:
    """Open a bundle folder and check every file in it.

    Raises `ManifestInvalid`, `BundleCorrupt` (missing, unexpected or changed file) or `ExternalDataRefused`.
    """
    text = _text(path / MANIFEST)
    manifest = Manifest.from_json(text)
    for found in sorted(path.iterdir()):
        if found.name != MANIFEST and found.name not in manifest.files:
            raise BundleCorrupt(found, "unexpected file", f"only {', '.join(manifest.files)} and {MANIFEST}")
    bundle = Bundle(path, version, manifest, hashlib.sha256(text.encode()).hexdigest())
    models = {manifest.model.file, *(variant.file for variant in manifest.variants)}
    for file in manifest.files:
        _check_file(bundle, file, is_model=file in models)  # one file in memory at a time
    return bundle


def _check_file(bundle: Bundle, file: str, *, is_model: bool) -> None:
    data, path = bundle.read(file), bundle.path / file
    if not is_model:
        return
    try:
        external = onnx_file.has_external_data(data)
    except ValueError as exc:
        raise BundleCorrupt(path, f"broken protobuf ({exc})", "an ONNX model") from exc
    if external:
        raise ExternalDataRefused(path)


class Repository:
    """The folder of models. Reading takes no lock; publishers take turns per model."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of the models that have at least one version, sorted; none of those that are `unreadable`."""
        return [name for name in self._folders() if self._listed(name)]

    def unreadable(self) -> list[str]:
        """Names whose versions cannot be listed, sorted; the others still serve. `versions` raises the reason."""
        return [name for name in self._folders() if self._listed(name) is None]

    def versions(self, name: str) -> list[int]:
        """Version numbers of a model, ascending; empty where there is no such model. Raises `BundleCorrupt`."""
        folder = self.root / name
        try:
            if not valid_name(name) or not folder.is_dir():
                return []
            return sorted(int(path.name) for path in folder.iterdir() if _is_version(path.name) and path.is_dir())
        except FileNotFoundError:  # removed meanwhile
            return []
        except OSError as exc:
            raise BundleCorrupt(folder, f"unreadable ({exc.strerror})", "a folder that can be listed") from exc

    def open(self, name: str, version: int | None = None) -> Bundle:
        """Open one version, by default the newest.

        Raises `ModelNotFound`, `VersionNotFound`, or what `open_bundle` raises.
        """
        versions = self.versions(name)
        if not versions:
            raise ModelNotFound(name, self.models())
        version = versions[-1] if version is None else version
        if version not in versions:
            raise VersionNotFound(name, version, versions)
        path = self.root / name / str(version)
        if path.is_symlink():  # it could be pointed elsewhere, and the number would get other content
            raise BundleCorrupt(path, "a symbolic link", "a folder, as versions are written once")
        bundle = open_bundle(path, version)
        _check_name(bundle, name)
        return bundle

    def publish(self, name: str, write: Callable[[Path], None]) -> Bundle:
        """Let `write` fill an empty folder with a bundle's files, check them, and make them the next version.

        Nothing is published when `write` or the check raises. Raises `NotPublished` where the disk refuses (full, read
        only), and what `open_bundle` raises.
        """
        if not valid_name(name):
            raise BundleRefused(f"'{name}' is no model name; use a-z, 0-9, '.', '_' and '-', at most 64")
        self._require_own()
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked_folder(folder):
                version = self._publish(name, folder, write)
        except OSError as exc:
            raise NotPublished(folder, exc.strerror or str(exc)) from exc
        return self.open(name, version)

    def _require_own(self) -> None:
        """Raises `NotPublished` for the embedded models of an installed distribution, which its update replaces."""
        if program.holds_installed_models(self.root):
            raise NotPublished(self.root, f"{OF_THE_PROGRAM}; publish into ./models instead")

    def sweep(self, name: str) -> None:
        """Remove the staging folders of killed publishers; waits for one that is at work.

        Publishing does so too, but a run that is refused before it publishes needs this. Raises `NotPublished`.
        """
        self._require_own()
        folder = self.root / name
        if not any(folder.glob(f"{_STAGING}*")):
            return
        try:
            with locked_folder(folder):
                _remove_stale(folder)
        except OSError as exc:
            raise NotPublished(folder, exc.strerror or str(exc)) from exc

    def _folders(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if valid_name(path.name))

    def _listed(self, name: str) -> list[int] | None:
        """None where the folder cannot be listed."""
        try:
            return self.versions(name)
        except BundleCorrupt:
            return None

    def _publish(self, name: str, folder: Path, write: Callable[[Path], None]) -> int:
        staging = _empty_staging(folder)
        try:
            write(staging)
            _check_name(open_bundle(staging), name)
            _flush(staging)
            version = _rename_to_next(staging, folder, self.versions(name))
        except BaseException:  # free the disk; the next publisher removes what cannot be removed now
            shutil.rmtree(staging, ignore_errors=True)
            raise
        flush_folder(folder)
        flush_folder(self.root)
        return version


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str:
    try:
        return _read(path, MAX_MANIFEST_BYTES, "UTF-8 JSON").decode()
    except UnicodeDecodeError as exc:
        raise BundleCorrupt(path, f"unreadable ({exc})", "UTF-8 JSON") from exc


def _read(path: Path, largest: int, expected: str) -> bytes:
    """Where the system refuses, its `OSError` is the cause of the error, since the file may be whole."""
    try:
        return read_regular(path, largest)
    except ValueError as exc:
        raise BundleCorrupt(path, str(exc), expected) from exc
    except OSError as exc:
        raise BundleCorrupt(path, f"unreadable ({exc.strerror})", expected) from exc


def _read_checked(path: Path, expected: str) -> bytes:
    data = _read(path, MAX_FILE_BYTES, f"a file with SHA-256 {expected}")
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BundleCorrupt(path, f"SHA-256 {found} of {len(data):,} bytes", f"SHA-256 {expected}")
    return data


def _check_name(bundle: Bundle, name: str) -> None:
    if bundle.name != name:
        raise BundleCorrupt(bundle.path / MANIFEST, f"it names the model '{bundle.name}'", f"'{name}'")


def _is_version(name: str) -> bool:
    """At most 18 digits, as a version travels in 64 bits."""
    return name.isascii() and name.isdigit() and name[0] != "0" and len(name) <= 18


def _empty_staging(folder: Path) -> Path:
    _remove_stale(folder)
    staging = folder / f"{_STAGING}{uuid.uuid4().hex}"
    staging.mkdir()
    return staging


def _remove_stale(folder: Path) -> None:
    """The holder of the lock may remove every staging folder: their owners are gone."""
    for stale in folder.glob(f"{_STAGING}*"):
        remove(stale)


def _rename_to_next(staging: Path, folder: Path, versions: list[int]) -> int:
    version = max(versions, default=0) + 1
    while os.path.lexists(folder / str(version)):  # an empty folder would be replaced silently
        version += 1
    staging.rename(folder / str(version))
    return version


def _flush(staging: Path) -> None:
    for path in staging.iterdir():
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_nlink > 1:  # under its other name the published file could be changed
                raise BundleCorrupt(path, "a hard link to a file that has other names", "a file of its own")
            os.fsync(file.fileno())
    flush_folder(staging)
