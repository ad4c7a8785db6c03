"""Publishing: the next number by one rename, in turn, and never half a version whatever happens on the way."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from anther import program
from bundle.errors import BundleCorrupt, BundleRefused, ExternalDataRefused, ManifestInvalid, NotPublished
from bundle.manifest import Manifest
from bundle.repository import MANIFEST, Repository, sha256_of

ROOT = Path(__file__).parents[2]
PUBLISH = """
import shutil, sys
from pathlib import Path
from bundle.repository import Repository

source, root, halt_after = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def write(folder):
    for path in sorted(source.iterdir()):
        shutil.copy(path, folder)
        if path.name == halt_after:
            print("halted", flush=True)
            sys.stdin.read()

print(Repository(root).publish("flowers", write).version, flush=True)
"""


@pytest.fixture(scope="module")
def source(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("source") / "bundle")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "models")


def copy_of(source: Path) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for path in sorted(source.iterdir()):
            shutil.copy(path, folder)

    return write


def publisher(source: Path, root: Path, halt_after: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISH, str(source), str(root), halt_after]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def leftovers(repository: Repository) -> list[str]:
    return [path.name for path in (repository.root / "flowers").iterdir() if not path.name.isdigit()]


# Alone


def test_versions_count_up_from_one(repository: Repository, source: Path) -> None:
    for expected in (1, 2, 3):
        published = repository.publish("flowers", copy_of(source))
        assert (published.version, published.path) == (expected, repository.root / "flowers" / str(expected))
    assert repository.versions("flowers") == [1, 2, 3]
    assert leftovers(repository) == []
    assert repository.open("flowers", 2).manifest == Manifest.from_json((source / MANIFEST).read_text())


def test_the_next_number_is_over_the_largest_not_the_first_free(repository: Repository, source: Path) -> None:
    """A number that was once served never comes back with another content."""
    for name in ("3", "7"):
        shutil.copytree(source, repository.root / "flowers" / name)
    assert repository.publish("flowers", copy_of(source)).version == 8


@pytest.mark.parametrize("put", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_what_stands_in_the_way_is_not_replaced(
    repository: Repository, source: Path, put: Callable[[Path], None]
) -> None:
    repository.publish("flowers", copy_of(source))
    put(repository.root / "flowers" / "2")
    before = (repository.root / "flowers" / "2").stat()
    assert repository.publish("flowers", copy_of(source)).version == 3
    assert (repository.root / "flowers" / "2").stat().st_ino == before.st_ino


def test_the_writer_is_given_an_empty_folder_beside_the_versions(repository: Repository, source: Path) -> None:
    seen = []

    def write(folder: Path) -> None:
        seen.append((folder.parent, list(folder.iterdir()), repository.versions("flowers")))
        copy_of(source)(folder)

    repository.publish("flowers", write)
    assert seen == [(repository.root / "flowers", [], [])]


def test_the_version_is_the_writers_folder_renamed_not_a_copy(repository: Repository, source: Path) -> None:
    """A rename is what makes it appear whole; a copy would grow before the reader's eyes."""
    written = []

    def write(folder: Path) -> None:
        copy_of(source)(folder)
        written.append(folder.stat().st_ino)

    assert repository.publish("flowers", write).path.stat().st_ino == written[0]


def test_nothing_is_published_beside_the_embedded_model_of_an_installed_program(
    repository: Repository, source: Path, monkeypatch
) -> None:
    monkeypatch.setattr(program, "EMBEDDED_MODELS", repository.root)
    monkeypatch.setattr(program, "_INSTALLED", program.ROOT)
    for change in (lambda: repository.publish("flowers", copy_of(source)), lambda: repository.sweep("flowers")):
        with pytest.raises(NotPublished, match=r"publish into \./models instead"):
            change()
    assert not (repository.root / "flowers").exists()


def test_models_are_numbered_apart(repository: Repository, make_bundle, tmp_path: Path, publish_bundle) -> None:
    assert publish_bundle(repository.root, "flowers") == 1
    assert publish_bundle(repository.root, "birds") == 1
    assert publish_bundle(repository.root, "flowers", seed=1) == 2
    assert repository.models() == ["birds", "flowers"]


# Refused


def interrupted(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"half")
    raise KeyboardInterrupt


def failing(folder: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("write", "error"), [(interrupted, KeyboardInterrupt), (failing, NotPublished)])
def test_a_writer_that_fails_publishes_nothing(
    repository: Repository, source: Path, write: Callable[[Path], None], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        repository.publish("flowers", write)
    assert (repository.models(), leftovers(repository)) == ([], [])
    assert repository.publish("flowers", copy_of(source)).version == 1


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def extra(folder: Path) -> None:
    (folder / "training-photo.jpg").write_bytes(b"")


def bit_flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[100] ^= 1
    (folder / "model.onnx").write_bytes(data)


def other_name(folder: Path) -> None:
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(dataclasses.replace(manifest, name="birds").to_json())


def no_json(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (without("manifest.json"), BundleCorrupt),
        (without("model.onnx"), BundleCorrupt),
        (without("golden.npz"), BundleCorrupt),
        (without("report.html"), BundleCorrupt),
        (extra, BundleCorrupt),
        (bit_flip, BundleCorrupt),
        (other_name, BundleCorrupt),
        (no_json, ManifestInvalid),
    ],
)
def test_what_could_not_be_opened_is_not_published(
    repository: Repository, source: Path, spoil: Callable[[Path], object], error: type[BundleRefused]
) -> None:
    repository.publish("flowers", copy_of(source))

    def write(folder: Path) -> None:
        copy_of(source)(folder)
        spoil(folder)

    with pytest.raises(error):
        repository.publish("flowers", write)
    assert repository.versions("flowers") == [1]


def test_external_data_is_not_published(repository: Repository, source: Path) -> None:
    def write(folder: Path) -> None:
        copy_of(source)(folder)
        model = onnx.load(folder / "model.onnx")
        onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        manifest = Manifest.from_json((folder / MANIFEST).read_text())
        files = {path.name: sha256_of(path) for path in folder.iterdir() if path.name != MANIFEST}
        (folder / MANIFEST).write_text(dataclasses.replace(manifest, files=files).to_json())

    with pytest.raises(ExternalDataRefused):
        repository.publish("flowers", write)
    assert repository.versions("flowers") == []


@pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "/etc", "Flowers", ".staging-1", "x" * 65, "a\0b", "a b"])
def test_no_name_leads_out_of_the_repository(repository: Repository, source: Path, name: str) -> None:
    with pytest.raises(BundleRefused, match="is no model name; use a-z"):
        repository.publish(name, copy_of(source))
    assert not repository.root.exists()


# At once


def test_threads_that_publish_at_once_get_a_version_each(repository: Repository, source: Path) -> None:
    start = threading.Barrier(6)

    def publish(_: int) -> int:
        start.wait(timeout=60)
        return repository.publish("flowers", copy_of(source)).version

    with ThreadPoolExecutor(6) as pool:
        versions = list(pool.map(publish, range(6)))
    assert sorted(versions) == [1, 2, 3, 4, 5, 6] == repository.versions("flowers")
    assert leftovers(repository) == []


def test_processes_that_publish_at_once_get_a_version_each(repository: Repository, source: Path) -> None:
    publishers = [publisher(source, repository.root) for _ in range(3)]
    versions = sorted(int(process.communicate(timeout=120)[0]) for process in publishers)
    assert versions == [1, 2, 3] == repository.versions("flowers")
    assert leftovers(repository) == []


def test_the_second_publisher_waits_and_leaves_the_firsts_files_alone(repository: Repository, source: Path) -> None:
    with publisher(source, repository.root, halt_after="golden.npz") as first:
        assert first.stdout.readline() == "halted\n"
        with publisher(source, repository.root) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(timeout=1)
            assert len(leftovers(repository)) == 1
            assert repository.versions("flowers") == []
            assert first.communicate(timeout=60)[0] == "1\n"
            assert second.communicate(timeout=60)[0] == "2\n"
    assert repository.versions("flowers") == [1, 2]


def test_a_reader_never_sees_half_a_version(repository: Repository, source: Path) -> None:
    """Whatever number is listed can be opened, at any moment of the publishing of others."""
    done, opened = threading.Event(), set()

    def read() -> None:
        last = False
        while not last:
            last = done.is_set()
            for version in repository.versions("flowers"):
                opened.add(repository.open("flowers", version).version)

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(10):
                repository.publish("flowers", slowly(source))
        finally:
            done.set()
        for reader in readers:
            reader.result(timeout=60)
    assert opened == set(range(1, 11))


def slowly(source: Path) -> Callable[[Path], None]:
    """Byte by byte in a few steps, so that a reader meets every state."""

    def write(folder: Path) -> None:
        for path in sorted(source.iterdir()):
            data = path.read_bytes()
            with (folder / path.name).open("wb", buffering=0) as file:
                for start in range(0, len(data), len(data) // 4 + 1):
                    file.write(data[start : start + len(data) // 4 + 1])

    return write


# Killed


@pytest.mark.parametrize("halt_after", ["golden.npz", "manifest.json", "report.html"])
def test_a_killed_publisher_leaves_nothing_that_is_served(
    repository: Repository, source: Path, halt_after: str
) -> None:
    """After the first file, in the middle, and when all files are there but not yet checked and renamed."""
    repository.publish("flowers", copy_of(source))
    with publisher(source, repository.root, halt_after) as process:
        assert process.stdout.readline() == "halted\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(leftovers(repository)) == 1, "the dead publisher's files are still there"
    assert repository.versions("flowers") == [1]
    assert repository.open("flowers").version == 1
    assert repository.publish("flowers", copy_of(source)).version == 2
    assert leftovers(repository) == []


def test_the_only_publisher_killed_leaves_no_model(repository: Repository, source: Path) -> None:
    with publisher(source, repository.root, "report.html") as process:
        assert process.stdout.readline() == "halted\n"
        process.kill()
        process.wait(timeout=60)
    assert repository.models() == []
