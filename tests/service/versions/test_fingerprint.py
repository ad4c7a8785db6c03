"""A change on the disk is seen without reading a file, and nothing but a change is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.repository import Repository
from service.versions import fingerprint


@pytest.fixture
def repository(tmp_path: Path, publish_bundle) -> Repository:
    publish_bundle(tmp_path)
    return Repository(tmp_path)


def test_an_untouched_folder_stays_equal(repository: Repository) -> None:
    before = fingerprint.of_repository(repository)
    assert (repository.root / "flowers" / "1" / "model.onnx").read_bytes()
    assert fingerprint.of_repository(repository) == before


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file grows": lambda model: (model / "1" / "report.html").write_bytes(b"other"),
    "a file is as long and newer": lambda model: os.utime(model / "1" / "report.html", ns=(1, 1)),
    "a file is locked": lambda model: (model / "1" / "report.html").chmod(0),
    "a file goes": lambda model: (model / "1" / "report.html").unlink(),
    "a file comes": lambda model: (model / "1" / "notes.txt").touch(),
    "a version's folder is locked": lambda model: (model / "1").chmod(0o100),
    "a version goes": lambda model: (model / "1").rename(model / "old"),
    "a version comes": lambda model: (model / "2").mkdir(),
    "a policy comes": lambda model: (model / "serving.json").touch(),
    "a model goes": lambda model: model.rename(model.with_name(".old")),
    "another model comes": lambda model: model.with_name("trees").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(repository: Repository, change: str) -> None:
    before = fingerprint.of_repository(repository)
    CHANGES[change](repository.root / "flowers")
    assert fingerprint.of_repository(repository) != before


def test_what_is_no_model_is_not_looked_at(repository: Repository) -> None:
    before = fingerprint.of_repository(repository)
    (repository.root / "lost+found").mkdir()
    (repository.root / "flowers" / ".staging-1").mkdir()
    assert fingerprint.of_repository(repository) == before


def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert fingerprint.of_folder(tmp_path / "nothing") == fingerprint.GONE
    assert fingerprint.of_folder(tmp_path / "file") == fingerprint.GONE
    assert fingerprint.of_file(tmp_path / "nothing") == fingerprint.GONE
    assert fingerprint.of_folder(tmp_path) != fingerprint.GONE


def test_a_folder_that_cannot_be_listed_is_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert fingerprint.of_folder(tmp_path) != fingerprint.GONE


def test_a_folder_of_models_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Or a share that is not mounted would look like one from which everything was deleted."""
    with pytest.raises(FileNotFoundError):
        fingerprint.of_repository(Repository(tmp_path / "nothing"))
