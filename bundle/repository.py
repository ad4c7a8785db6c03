"""`models/<name>/<version>/`: numeric, write-once versions, each published by one atomic rename.

A reader never sees half a version: files are written into `.staging-…` beside the versions, checked, flushed to disk
and renamed. A crash leaves a staging folder that nobody serves and that the next publisher removes.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bundle import onnx_file
from bundle.errors import BundleCorrupt, BundleRefused, ExternalDataRefused, ModelNotFound, VersionNotFound
from bundle.manifest import Manifest, valid_name

MANIFEST, GOLDEN, REPORT = "manifest.json", "golden.npz", "report.html"
_STAGING = ".staging-"


@dataclass(frozen=True)
class Bundle:
    """A version whose every file was checked against its digest when it was opened."""

    path: Path
    version: int
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    def read(self, file: str) -> bytes:
        """A file's bytes, checked again, so that what is used is what was published. Raises `BundleCorrupt`."""
        if file not in self.manifest.files:
            raise BundleCorrupt(
                self.path / file, "not named in the manifest", f"one of {', '.join(self.manifest.files)}"
            )
        return _read_checked(self.path / file, self.manifest.files[file])


def open_bundle(path: Path, version: int = 0) -> Bundle:
    """Open a bundle folder and check every file in it.

    Raises `ManifestInvalid`, `BundleCorrupt` (missing, unexpected or changed file) or `ExternalDataRefused`.
    """
    manifest = Manifest.from_json(_text(path / MANIFEST))
    for found in sorted(path.iterdir()):
        if found.name != MANIFEST and found.name not in manifest.files:
            raise BundleCorrupt(found, "unexpected file", f"only {', '.join(manifest.files)} and {MANIFEST}")
    bundle = Bundle(path, version, manifest)
    contents = {file: bundle.read(file) for file in manifest.files}
    try:
        external = onnx_file.has_external_data(contents[manifest.model.file])
    except ValueError as exc:
        raise BundleCorrupt(path / manifest.model.file, f"broken protobuf ({exc})", "an ONNX model") from exc
    if external:
        raise ExternalDataRefused(path / manifest.model.file)
    return bundle


class Repository:
    """The folder of models. Reading takes no lock; publishers take turns per model."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[str]:
        """Names of the models that have at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if valid_name(path.name) and self.versions(path.name))

    def versions(self, name: str) -> list[int]:
        """Version numbers of a model, ascending; empty where there is no such model."""
        folder = self.root / name
        if not valid_name(name) or not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if _is_version(path.name) and path.is_dir())

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
        bundle = open_bundle(self.root / name / str(version), version)
        if bundle.name != name:
            raise BundleCorrupt(bundle.path / MANIFEST, f"it names the model '{bundle.name}'", f"'{name}'")
        return bundle

    def publish(self, name: str, write: Callable[[Path], None]) -> Bundle:
        """Let `write` fill an empty folder with a bundle's files, check them, and make them the next version.

        Nothing is published when `write` or the check raises.
        """
        if not valid_name(name):
            raise BundleRefused(f"'{name}' is no model name; use a-z, 0-9, '.', '_' and '-', at most 64")
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder):
            staging = _empty_staging(folder)
            write(staging)
            if (written := open_bundle(staging).name) != name:
                raise BundleCorrupt(staging / MANIFEST, f"it names the model '{written}'", f"'{name}'")
            _flush(staging)
            version = _rename_to_next(staging, folder, self.versions(name))
            _flush_folder(folder)
        return self.open(name, version)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(path: Path) -> str:
    try:
        return _read_regular(path, "UTF-8 JSON").decode()
    except UnicodeDecodeError as exc:
        raise BundleCorrupt(path, f"unreadable ({exc})", "UTF-8 JSON") from exc


def _read_regular(path: Path, expected: str) -> bytes:
    """A link would tie the bundle to a place outside it, and reading a pipe would never end."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleCorrupt(path, "no regular file", expected)
        return path.read_bytes()
    except OSError as exc:
        raise BundleCorrupt(path, f"unreadable ({exc.strerror})", expected) from exc


def _read_checked(path: Path, expected: str) -> bytes:
    data = _read_regular(path, f"a file with SHA-256 {expected}")
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BundleCorrupt(path, f"SHA-256 {found} of {len(data):,} bytes", f"SHA-256 {expected}")
    return data


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One publisher of a model at a time; the kernel gives the lock back when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _empty_staging(folder: Path) -> Path:
    """Whoever holds the turn may remove every staging folder: their owners are gone."""
    for stale in folder.glob(f"{_STAGING}*"):
        shutil.rmtree(stale)
    staging = folder / f"{_STAGING}{uuid.uuid4().hex}"
    staging.mkdir()
    return staging


def _rename_to_next(staging: Path, folder: Path, versions: list[int]) -> int:
    version = max(versions, default=0) + 1
    while (folder / str(version)).exists():  # an empty folder would be replaced without a word
        version += 1
    staging.rename(folder / str(version))
    return version


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
