"""Bundles made to do harm: every one is refused with a reason, in little memory, and nothing outside is touched."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import BundleCorrupt, BundleRefused, ManifestInvalid
from bundle.manifest import Manifest
from bundle.repository import MANIFEST, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, Repository, open_bundle, sha256_of


@pytest.fixture(scope="module")
def original(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "models" / "flowers" / "1")


@pytest.fixture
def repository(folder: Path) -> Repository:
    return Repository(folder.parents[1])


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write any record as a manifest whose own digest is right."""
    blank = json.dumps({**record, "manifest_sha256": ""})
    digest = hashlib.sha256(blank.encode()).hexdigest()
    (folder / MANIFEST).write_text(blank.replace('"manifest_sha256": ""', f'"manifest_sha256": "{digest}"'))


def record_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_text()))


def put(folder: Path, file: str, content: bytes) -> None:
    """A file of the bundle with another content under a right digest."""
    (folder / file).write_bytes(content)
    record = record_of(folder)
    seal(folder, {**record, "files": {**record["files"], file: sha256_of(folder / file)}})


def refusal_of(call: Callable[[], object]) -> str:
    """The sentence with which `call` is refused; empty where it is not. Any other error is the test's to show."""
    try:
        call()
    except BundleRefused as refusal:
        return str(refusal)
    return ""


def peak(call: Callable[[], object]) -> int:
    """Most bytes that Python held while `call` was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(BundleRefused):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Links


def test_a_version_that_is_a_link_is_refused_with_the_reason(repository: Repository, folder: Path) -> None:
    """Its number could be given another content at any time."""
    outside = shutil.copytree(folder, repository.root.parent / "outside")
    (folder.parent / "2").symlink_to(outside)
    assert repository.versions("flowers") == [1, 2]
    with pytest.raises(BundleCorrupt, match=r"flowers/2: a symbolic link; expected a folder, as versions are written"):
        repository.open("flowers")
    assert repository.open("flowers", 1).version == 1


def test_a_link_that_leads_nowhere_or_in_a_circle_is_no_version(repository: Repository, folder: Path) -> None:
    (folder.parent / "2").symlink_to("nowhere")
    (folder.parent / "3").symlink_to("3")
    assert repository.versions("flowers") == [1]


def test_a_model_may_lie_elsewhere(repository: Repository, folder: Path) -> None:
    """Operators link a model's whole folder from a larger disk; what it holds is proven like any other."""
    shutil.move(folder.parent, repository.root.parent / "disk")
    (repository.root / "flowers").symlink_to(repository.root.parent / "disk")
    assert repository.open("flowers").version == 1
    assert repository.publish("flowers", lambda staging: copy(repository.open("flowers").path, staging)).version == 2


def test_a_link_to_a_secret_is_not_read(repository: Repository, folder: Path) -> None:
    secret = repository.root.parent / "secret"
    secret.write_text("the password")
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to(secret)
    with pytest.raises(BundleCorrupt) as refusal:
        repository.open("flowers")
    assert "password" not in str(refusal.value)


def test_a_hard_linked_copy_is_served(repository: Repository, folder: Path) -> None:
    """`cp -al`, deduplicated backups, package caches and image layers make them; the digests hold all the same."""
    shutil.copytree(folder, folder.parent / "2", copy_function=os.link)
    opened = repository.open("flowers")
    assert opened.version == 2
    with (folder / "report.html").open("ab") as file:
        file.write(b"changed by its other name")
    with pytest.raises(BundleCorrupt, match="SHA-256"):
        opened.read("report.html")


def test_a_hard_link_is_not_published(repository: Repository, folder: Path) -> None:
    """Whoever keeps the other name could still change what must never change again."""

    def link(staging: Path) -> None:
        shutil.copytree(folder, staging, copy_function=os.link, dirs_exist_ok=True)

    with pytest.raises(BundleCorrupt, match="a hard link to a file that has other names; expected a file of its own"):
        repository.publish("flowers", link)
    assert repository.versions("flowers") == [1]


def copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


# What is no file, or far too much of one


@pytest.mark.parametrize("file", [MANIFEST, "model.onnx", "golden.npz", "report.html"])
def test_a_device_is_not_read(repository: Repository, folder: Path, file: str) -> None:
    (folder / file).unlink()
    try:
        os.mknod(folder / file, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero never ends
    except PermissionError:
        pytest.skip("device nodes may not be made here")
    with pytest.raises(BundleCorrupt, match=f"{file}: no regular file"):
        repository.open("flowers")


def test_a_manifest_of_100_mb_is_refused_by_its_size_alone(repository: Repository, folder: Path) -> None:
    with (folder / MANIFEST).open("ab") as file:
        file.truncate(100_000_000)
    assert peak(lambda: repository.open("flowers")) < 2**20
    with pytest.raises(BundleCorrupt, match="100,000,000 bytes, more than the 16,777,216 that are read"):
        repository.open("flowers")


def test_a_thousand_classes_have_room(repository: Repository, folder: Path) -> None:
    """Most of a large manifest is the confusion matrix."""
    manifest = Manifest.from_json((folder / MANIFEST).read_text())
    confusion = tuple((0,) * 1000 for _ in range(1000))
    large = dataclasses.replace(manifest, metrics=dataclasses.replace(manifest.metrics, confusion=confusion))
    (folder / MANIFEST).write_text(large.to_json())
    assert 2**23 < (folder / MANIFEST).stat().st_size < MAX_MANIFEST_BYTES
    assert repository.open("flowers").manifest.metrics.confusion == confusion


@pytest.mark.parametrize("file", ["model.onnx", "golden.npz", "report.html"])
def test_a_terabyte_is_refused_by_its_size_alone(repository: Repository, folder: Path, file: str) -> None:
    """Without a block on disk, as anybody can make one."""
    with (folder / file).open("ab") as opened:
        opened.truncate(2**40)
    with pytest.raises(BundleCorrupt, match=f"more than the {MAX_FILE_BYTES:,} that are read"):
        repository.open("flowers")


def test_a_number_that_no_answer_could_carry_is_no_version(repository: Repository, folder: Path) -> None:
    shutil.copytree(folder, folder.parent / ("9" * 19))
    shutil.copytree(folder, folder.parent / ("9" * 18))
    assert repository.versions("flowers") == [1, 10**18 - 1]


# Manifests that lie


HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 10**400, 1e308, -1e308, 5e-324),
    *("", "x" * 100_000, "../../etc/passwd", "\0", "\x1b[2J", "<script>", "\u202e", [], {}, [[]], {"": ""}),
    *([0] * 10_000, ["a"] * 10_000, {"../up": "0" * 64}, {"model.onnx": "0" * 64}),
]


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a manifest holds a value, of any kind, at any depth."""
    if path:
        yield path
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def test_any_hostile_value_anywhere_opens_or_is_refused_in_a_sentence(original: Path, tmp_path: Path) -> None:
    """Whatever stands in a sealed manifest, the reader survives it, and the log gets a line and no page."""
    record = record_of(original)
    del record["manifest_sha256"]
    refused = 0
    for path in places(record):
        for value in HOSTILE:
            lying = json.loads(json.dumps(record))
            holder = lying
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            seal(tmp_path, lying)
            sentence = refusal_of(lambda: Manifest.from_json((tmp_path / MANIFEST).read_text()))
            assert len(sentence) < 700
            refused += sentence != ""
    assert refused > 1000


def test_a_manifest_that_names_a_file_twice_or_itself_is_refused(repository: Repository, folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    twice = text.replace('"report.html": "', f'"report.html": "{"0" * 64}",\n    "report.html": "')
    (folder / MANIFEST).write_text(twice)
    with pytest.raises(ManifestInvalid, match=r"the key 'report\.html' stands twice"):
        repository.open("flowers")
    record = json.loads(text)
    seal(folder, {**record, "files": {**record["files"], MANIFEST: "0" * 64}})
    with pytest.raises(ManifestInvalid, match="plain file names with SHA-256 digests"):
        repository.open("flowers")


def test_a_manifest_with_the_digest_of_another_model_is_refused(repository: Repository, folder: Path) -> None:
    record = record_of(folder)
    seal(folder, {**record, "files": {**record["files"], "model.onnx": "0" * 64}})
    with pytest.raises(
        BundleCorrupt, match=rf"model\.onnx: SHA-256 [0-9a-f]{{64}} of .* bytes; expected SHA-256 {0:064}"
    ):
        repository.open("flowers")


def test_labels_of_a_book_are_refused(repository: Repository, folder: Path) -> None:
    """They stand in every answer and as a label of every metric."""
    seal(folder, {**record_of(folder), "labels": ["a", "b", "c" * 257]})
    with pytest.raises(ManifestInvalid, match="labels of at most 256 characters, got one of 257"):
        repository.open("flowers")


@pytest.mark.parametrize("depth", [100, 990, 1000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deeply_nested_json_is_refused(repository: Repository, folder: Path, depth: int, brackets: str) -> None:
    opening, closing = brackets[:-1] * depth, brackets[-1] * depth
    (folder / MANIFEST).write_text(f'{{"schema_version": {opening}0{closing}}}')
    with pytest.raises(ManifestInvalid):
        repository.open("flowers")


# Models that are none


def test_a_model_of_garbage_is_refused_or_left_to_the_runtime(folder: Path) -> None:
    """What by chance is protobuf holds no external data, and no runtime will take it for a model."""
    generator, refused = random.Random(0), 0
    for _ in range(60):
        put(folder, "model.onnx", generator.randbytes(generator.choice([1, 10, 1000, 100_000])))
        sentence = refusal_of(lambda: open_bundle(folder))
        assert sentence == "" or "model.onnx" in sentence
        refused += sentence != ""
    assert refused > 40
