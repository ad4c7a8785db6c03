"""Versions on disk: found, opened with every file checked, refused with anything wrong."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from anther.errors import AntherError
from bundle.errors import (
    BundleCorrupt,
    BundleRefused,
    ExternalDataRefused,
    ManifestInvalid,
    ModelNotFound,
    VersionNotFound,
)
from bundle.manifest import Manifest
from bundle.repository import MANIFEST, Repository, open_bundle, sha256_of

FILES = ("manifest.json", "model.onnx", "golden.npz", "report.html")
TRAVERSALS = ("..", "../flowers", "/etc", "flowers/1", "a/../flowers", ".", "", "flowers\0", "FLOWERS", "a" * 300)


@pytest.fixture(scope="module")
def original(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "models" / "flowers" / "1")


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository(folder.parents[1])


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """With every digest right again."""
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, **{"files": files, **changes}).to_json())


# What is there


def test_an_absent_folder_has_no_models(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "nowhere")
    assert (repository.models(), repository.versions("flowers")) == ([], [])
    with pytest.raises(ModelNotFound, match="no model 'flowers'; available: none"):
        repository.open("flowers")


def test_models_and_versions_are_listed_in_order(tmp_path: Path) -> None:
    for name in ["b/2", "b/10", "b/1", "a/3"]:
        (tmp_path / name).mkdir(parents=True)
    assert Repository(tmp_path).models() == ["a", "b"]
    assert Repository(tmp_path).versions("b") == [1, 2, 10]


@pytest.mark.parametrize(
    "name", ["0", "01", "-1", "+1", "1.0", "1a", " 1", "١", "²", "latest", ".staging-1", "1_0", "0x1"]
)
def test_folders_that_are_no_version_are_passed_over(repository: Repository, name: str) -> None:
    (repository.root / "flowers" / name).mkdir()
    assert repository.versions("flowers") == [1]
    assert repository.open("flowers").version == 1


def test_files_and_foreign_folders_are_passed_over(repository: Repository) -> None:
    (repository.root / "flowers" / "2").write_text("a file, not a version")
    (repository.root / "README.md").write_text("about these models")
    (repository.root / "Upper" / "1").mkdir(parents=True)
    (repository.root / ".hidden" / "1").mkdir(parents=True)
    (repository.root / "empty").mkdir()
    assert (repository.models(), repository.versions("flowers")) == (["flowers"], [1])


def test_a_model_without_versions_is_not_found(repository: Repository) -> None:
    (repository.root / "empty").mkdir()
    with pytest.raises(ModelNotFound, match="no model 'empty'; available: flowers"):
        repository.open("empty")


def check_that_birds_alone_are_unreadable(repository: Repository) -> None:
    assert (repository.models(), repository.unreadable()) == (["flowers"], ["birds"])
    assert repository.open("flowers").version == 1
    for refused in (repository.versions, repository.open):
        with pytest.raises(BundleCorrupt, match=r"birds: unreadable \(Permission denied\); expected a folder that can"):
            refused("birds")


def test_a_model_whose_folder_cannot_be_listed_hides_no_other(repository: Repository, monkeypatch) -> None:
    (repository.root / "birds" / "1").mkdir(parents=True)
    iterdir = Path.iterdir

    def refuse_birds(path: Path) -> object:
        if path.name == "birds":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse_birds)
    check_that_birds_alone_are_unreadable(repository)


@pytest.mark.skipif(os.geteuid() == 0, reason="modes do not bind root")
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_model_whose_folder_is_locked_hides_no_other(repository: Repository, mode: int) -> None:
    birds = repository.root / "birds"
    (birds / "1").mkdir(parents=True)
    birds.chmod(mode)
    try:
        check_that_birds_alone_are_unreadable(repository)
    finally:
        birds.chmod(0o755)


def test_a_model_that_is_removed_while_it_is_listed_has_no_versions(repository: Repository, monkeypatch) -> None:
    def remove(path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "iterdir", remove)
    assert repository.versions("flowers") == []


def test_what_the_system_refuses_is_the_cause_of_the_refusal(repository: Repository, monkeypatch) -> None:
    """For who wants to know whether it is the file's fault."""

    def refuse(path: Path, largest: int) -> bytes:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("bundle.repository.read_regular", refuse)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json: unreadable \(Too many open files\)") as refusal:
        repository.open("flowers")
    assert isinstance(refusal.value.__cause__, OSError)


@pytest.mark.parametrize("name", TRAVERSALS, ids=ascii)
def test_no_name_leads_out_of_the_repository(repository: Repository, name: str) -> None:
    assert repository.versions(name) == []
    with pytest.raises(ModelNotFound):
        repository.open(name)


# Opening


def test_the_newest_version_is_opened_by_default(repository: Repository, folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "9")
    shutil.copytree(folder, folder.parent / "10")
    assert repository.open("flowers").version == 10
    opened = repository.open("flowers", 9)
    assert (opened.version, opened.name, opened.path) == (9, "flowers", folder.parent / "9")
    assert opened.manifest.labels == ("daisy", "tulips", "roses")


@pytest.mark.parametrize("version", [0, 2, -1])
def test_an_absent_version_is_named_with_those_that_are_there(repository: Repository, version: int) -> None:
    with pytest.raises(VersionNotFound, match=f"model 'flowers' has no version {version}; available: 1"):
        repository.open("flowers", version)


def test_an_empty_version_folder_is_refused(repository: Repository) -> None:
    (repository.root / "flowers" / "2").mkdir()
    with pytest.raises(BundleCorrupt, match=r"manifest\.json: unreadable \(No such file or directory\)"):
        repository.open("flowers")
    assert repository.open("flowers", 1).version == 1


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt):
        open_bundle(tmp_path / "nowhere")


def test_files_are_read_with_their_digest_checked_again(repository: Repository, folder: Path) -> None:
    opened = repository.open("flowers")
    assert opened.read("report.html") == (folder / "report.html").read_bytes()
    (folder / "report.html").write_bytes(b"changed after opening")
    with pytest.raises(BundleCorrupt, match=r"report\.html: SHA-256 [0-9a-f]{64} of 21 bytes; expected SHA-256"):
        opened.read("report.html")


@pytest.mark.parametrize("file", ["../../secret", "/etc/passwd", "manifest.json", "weights.bin", ""])
def test_only_files_of_the_manifest_can_be_read(repository: Repository, file: str) -> None:
    (repository.root / "secret").write_text("secret")
    with pytest.raises(
        BundleCorrupt, match=r"not named in the manifest; expected one of model.onnx, golden.npz, report"
    ):
        repository.open("flowers").read(file)


# Refusing


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_refused(repository: Repository, folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(BundleCorrupt, match=rf"{file}: unreadable \(No such file or directory\)"):
        repository.open("flowers")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_truncated_file_is_refused(repository: Repository, folder: Path, file: str, share: float) -> None:
    """Nothing left, half of it, all but the last byte."""
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: min(int(len(data) * share), len(data) - 1)])
    with pytest.raises((BundleCorrupt, ManifestInvalid), match=file.replace("manifest.json", "manifest")):
        repository.open("flowers")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_flipped_bit_is_refused(repository: Repository, folder: Path, file: str, place: float) -> None:
    data = bytearray((folder / file).read_bytes())
    data[int((len(data) - 1) * place)] ^= 0x10
    (folder / file).write_bytes(data)
    with pytest.raises((BundleCorrupt, ManifestInvalid)):
        repository.open("flowers")


@pytest.mark.parametrize("file", FILES)
def test_a_longer_file_is_refused(repository: Repository, folder: Path, file: str) -> None:
    with (folder / file).open("ab") as opened:
        opened.write(b"\n")
    with pytest.raises((BundleCorrupt, ManifestInvalid)):
        repository.open("flowers")


@pytest.mark.parametrize("name", ["weights.bin", ".DS_Store", "model.onnx.data", "notes"])
def test_an_unexpected_file_is_refused(repository: Repository, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(BundleCorrupt, match=f"{name}: unexpected file; expected only model.onnx, golden.npz, report.h"):
        repository.open("flowers")


def test_an_unexpected_folder_is_refused(repository: Repository, folder: Path) -> None:
    (folder / "data").mkdir()
    with pytest.raises(BundleCorrupt, match="data: unexpected file"):
        repository.open("flowers")


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("put", [put_pipe, put_folder])
def test_what_is_no_file_is_refused_and_not_waited_for(
    repository: Repository, folder: Path, file: str, put: Callable[[Path], None]
) -> None:
    """Opening a pipe that nobody writes to would never return."""
    (folder / file).unlink()
    put(folder / file)
    with pytest.raises(BundleCorrupt, match=f"{file}: no regular file"):
        repository.open("flowers")


@pytest.mark.parametrize("file", FILES)
def test_a_link_is_refused_though_its_content_is_right(repository: Repository, folder: Path, file: str) -> None:
    """A bundle is one folder that can be copied; a link leads out of it."""
    (folder / file).rename(repository.root / file)
    (folder / file).symlink_to(repository.root / file)
    with pytest.raises(BundleCorrupt, match=f"{file}: no regular file"):
        repository.open("flowers")


def test_another_files_content_is_refused(repository: Repository, folder: Path) -> None:
    (folder / "report.html").write_bytes((folder / "golden.npz").read_bytes())
    with pytest.raises(BundleCorrupt, match=r"report\.html"):
        repository.open("flowers")


def test_external_data_is_refused_under_a_right_digest(repository: Repository, folder: Path) -> None:
    """Also where the file with the weights is a part of the bundle."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    rewrite_manifest(folder)
    with pytest.raises(ExternalDataRefused, match="keeps tensors in external files"):
        repository.open("flowers")


def test_a_model_that_is_no_protobuf_is_refused_under_a_right_digest(repository: Repository, folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-3])
    rewrite_manifest(folder)
    with pytest.raises(BundleCorrupt, match=r"model\.onnx: broken protobuf \(field \d+ runs \d+ bytes past the end\)"):
        repository.open("flowers")


def test_a_bundle_in_another_models_folder_is_refused(repository: Repository, folder: Path) -> None:
    shutil.copytree(folder, repository.root / "birds" / "1")
    with pytest.raises(BundleCorrupt, match="it names the model 'flowers'; expected 'birds'"):
        repository.open("birds")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"null", b"{}", b"\0" * 100, b'{"schema_version": 1}'])
def test_a_manifest_that_is_none_is_refused(repository: Repository, folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleRefused, match="manifest"):
        repository.open("flowers")


def test_every_refusal_is_one_line_with_facts(repository: Repository, folder: Path) -> None:
    (folder / "golden.npz").unlink()
    with pytest.raises(AntherError) as refusal:
        repository.open("flowers")
    assert "\n" not in str(refusal.value)
    assert refusal.value.facts["file"] == "golden.npz"


def test_the_digest_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
