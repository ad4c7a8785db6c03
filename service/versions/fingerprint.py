"""The state of files on the disk by stat alone, without reading them: equal while nothing has changed."""

import stat
from pathlib import Path

from bundle.errors import BundleRefused
from bundle.manifest import valid_name
from bundle.policy import POLICY
from bundle.repository import Repository, signature_of

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Name, size, time of the last change in ns, and mode of each file."""

GONE: Fingerprint = ()


def of_folder(folder: Path) -> Fingerprint:
    """The files of a version and the folder's mode; `GONE` where there is no such folder."""
    mode = _mode_of_folder(folder)
    if mode is None:
        return GONE
    try:
        files = sorted(folder.iterdir())
    except OSError:  # locked, or removed meanwhile: then the next rescan finds it gone
        files = []
    return ((".", 0, 0, mode), *(part for path in files for part in of_file(path)))


def of_version(folder: Path) -> Fingerprint:
    """A version's folder and its signature, which may come later; `GONE` where there is no such folder."""
    found = of_folder(folder)
    return found and (*found, *of_file(signature_of(folder)))


def of_file(path: Path) -> Fingerprint:
    """`GONE` where there is no such file."""
    try:
        found = path.lstat()
    except OSError:
        return GONE
    return ((path.name, found.st_size, found.st_mtime_ns, found.st_mode),)


def of_repository(repository: Repository) -> tuple[object, ...]:
    """Every model's policy and versions. Raises `OSError` where the folder of models cannot be listed."""
    names = sorted(path.name for path in repository.root.iterdir() if valid_name(path.name))
    return tuple((name, *_of_model(repository, name)) for name in names)


def _of_model(repository: Repository, name: str) -> tuple[object, ...]:
    """A model that cannot be listed does not hide changes of the others."""
    folder = repository.root / name
    state = (_mode_of_folder(folder), of_file(folder / POLICY))
    try:
        versions = repository.versions(name)
    except BundleRefused as exc:
        return (*state, str(exc))
    return (*state, *((version, of_version(folder / str(version))) for version in versions))


def _mode_of_folder(path: Path) -> int | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return mode if stat.S_ISDIR(mode) else None
