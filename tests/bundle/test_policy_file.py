"""`serving.json`: absent, read, refused, and changed in one step or not at all."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anther import files, program
from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid, PolicyNotWritable, VersionNotFound
from bundle.policy import POLICY, ServingPolicy, Share, edit_policy, read_policy

ROOT = Path(__file__).parents[2]
GOOD = {
    "schema_version": 1,
    "versions": "pinned",
    "stable": 2,
    "canary": {"version": 3, "share": 0.05},
    "shadow": None,
    "loaded": True,
    "previous": [1],
}
TRAVERSALS = ("..", "../flowers", "/etc", "flowers/1", ".", "", "flowers\0", "FLOWERS", "a" * 300)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The model 'flowers' with versions 1 to 3."""
    for version in (1, 2, 3):
        (tmp_path / "models" / "flowers" / str(version)).mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def path(root: Path) -> Path:
    return root / "flowers" / POLICY


def pin_2(policy: ServingPolicy) -> ServingPolicy:
    return policy.pinned_to(2, current=3)


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


# Reading


def test_without_a_file_the_default_serves(root: Path) -> None:
    assert read_policy(root, "flowers") == ServingPolicy()
    assert read_policy(root, "trees") == ServingPolicy()


def test_a_file_is_read(root: Path, path: Path) -> None:
    path.write_text(json.dumps(GOOD))
    assert read_policy(root, "flowers") == ServingPolicy(
        versions="pinned", stable=2, canary=Share(3, 0.05), previous=(1,)
    )


WRONG = {
    "field 'colour' is 'red'; expected one of the fields schema_version, versions": {"colour": "red"},
    "field 'versions' is 'newest'; expected 'latest' or 'pinned' or 'all'": {"versions": "newest"},
    "field 'stable' is True; expected a whole number": {"stable": True},
    "field 'loaded' is 1; expected true or false": {"loaded": 1},
    "field 'canary' is 3; expected an object with the fields version, share or null": {"canary": 3},
    "field 'canary.share' is 'half'; expected a number": {"canary": {"version": 1, "share": "half"}},
    "field 'canary' is {'share': 2, 'version': 1}; expected a share over 0": {"canary": {"version": 1, "share": 2}},
    "field 'shadow.share' is None; expected a value: the field is missing": {"shadow": {"version": 1}},
    "field 'previous[1]' is 1.5; expected a whole number": {"previous": [1, 1.5]},
    "field 'schema_version' is 2; expected 1, the one that this Anther reads": {"schema_version": 2, "new": {}},
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_field_is_named_with_what_was_expected(root: Path, path: Path, reason: str) -> None:
    path.write_text(json.dumps({**GOOD, **WRONG[reason]}))
    with pytest.raises(PolicyInvalid) as refusal:
        read_policy(root, "flowers")
    assert str(refusal.value).startswith(f"{path} is no serving policy: {reason}")
    assert str(refusal.value).endswith("; correct or delete it")
    assert isinstance(refusal.value, BundleRefused)


@pytest.mark.parametrize("field", GOOD)
def test_every_field_is_required(root: Path, path: Path, field: str) -> None:
    path.write_text(json.dumps({name: value for name, value in GOOD.items() if name != field}))
    with pytest.raises(PolicyInvalid, match=f"field '{field}' is None; expected"):
        read_policy(root, "flowers")


BROKEN = {
    "it is '{'; expected a JSON document": b"{",
    "it is ''; expected a JSON document": b"",
    "it is []; expected an object": b"[]",
    "stands twice": b'{"stable": 1, "stable": 2}',
    "can't decode byte 0xff": b"\xff\xfe",
    "expected a stable version of 1 or more": json.dumps({**GOOD, "stable": 0}).encode(),
    "65,537 bytes, more than the 65,536 that are read": b" " * 65_537,
    "maximum recursion depth": b"[" * 60_000,
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_is_no_policy_is_refused_with_the_reason(root: Path, path: Path, reason: str) -> None:
    path.write_bytes(BROKEN[reason])
    with pytest.raises(PolicyInvalid) as refusal:
        read_policy(root, "flowers")
    assert reason in str(refusal.value)


def put_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text(json.dumps(GOOD))
    path.symlink_to(target)


@pytest.mark.parametrize("put", [put_link, os.mkfifo, Path.mkdir], ids=["link", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_refused(root: Path, path: Path, put: Callable[[Path], object]) -> None:
    put(path)
    with pytest.raises(PolicyInvalid, match=r"serving\.json is no serving policy: no regular file"):
        read_policy(root, "flowers")
    with pytest.raises(PolicyInvalid):
        edit_policy(root, "flowers", pin_2)


def test_a_folder_that_is_none_is_refused(root: Path) -> None:
    (root / "trees").write_text("a file")
    with pytest.raises(PolicyInvalid, match=r"unreadable \(Not a directory\)"):
        read_policy(root, "trees")


@pytest.mark.parametrize("name", TRAVERSALS, ids=ascii)
def test_no_name_leads_out_of_the_repository(root: Path, name: str) -> None:
    (root.parent / POLICY).write_text(json.dumps(GOOD))
    with pytest.raises(ModelNotFound):
        read_policy(root, name)
    with pytest.raises(ModelNotFound):
        edit_policy(root, name, pin_2)


# Editing


@pytest.mark.parametrize("installed", [True, False])
def test_the_embedded_model_of_an_installed_program_keeps_its_policy(
    root: Path, path: Path, tmp_path: Path, monkeypatch, installed: bool
) -> None:
    """In a checkout the folder is its user's."""
    monkeypatch.setattr(program, "EMBEDDED_MODELS", root)
    monkeypatch.setattr(program, "_INSTALLED", program.ROOT if installed else tmp_path / "none")
    if not installed:
        assert edit_policy(root, "flowers", ServingPolicy.unloaded).loaded is False
        return
    with pytest.raises(PolicyNotWritable, match=rf"; the policy is as it was: copy {root} to \./models"):
        edit_policy(root, "flowers", ServingPolicy.unloaded)
    assert not path.exists()


def test_a_change_is_written_and_read_again(root: Path, path: Path) -> None:
    assert edit_policy(root, "flowers", pin_2) == read_policy(root, "flowers") == pin_2(ServingPolicy())
    changed = edit_policy(root, "flowers", lambda policy: policy.with_canary(3, 0.05).promoted(1, 2))
    assert changed == ServingPolicy(versions="pinned", stable=1, canary=Share(3, 0.05), previous=(3, 2))
    assert read_policy(root, "flowers") == changed
    assert path.read_text().startswith('{\n  "schema_version": 1,\n  "versions": "pinned",\n')
    assert names(path.parent) == ["1", "2", "3", POLICY]


def test_every_field_of_the_record_is_written(root: Path, path: Path) -> None:
    edit_policy(root, "flowers", pin_2)
    assert list(json.loads(path.read_text())) == [field.name for field in dataclasses.fields(ServingPolicy)]


def test_what_changes_nothing_writes_nothing(root: Path, path: Path) -> None:
    edit_policy(root, "flowers", ServingPolicy.following_latest)
    assert not path.exists()
    edit_policy(root, "flowers", pin_2)
    before = path.stat().st_ino
    edit_policy(root, "flowers", lambda policy: policy.reloaded())
    assert path.stat().st_ino == before


def test_an_unknown_model_has_no_policy_to_edit(root: Path) -> None:
    (root / "empty").mkdir()
    for name in ("trees", "empty"):
        with pytest.raises(ModelNotFound, match=f"no model '{name}'; available: flowers"):
            edit_policy(root, name, pin_2)
        assert not (root / name / POLICY).exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda policy: policy.pinned_to(4, 3),
        lambda policy: policy.promoted(4, 3),
        lambda policy: policy.with_canary(4, 0.5),
        lambda policy: policy.with_shadow(4, 0.5),
    ],
    ids=["pin", "promote", "canary", "shadow"],
)
def test_a_version_that_does_not_exist_cannot_be_named(
    root: Path, path: Path, change: Callable[[ServingPolicy], ServingPolicy]
) -> None:
    with pytest.raises(VersionNotFound, match="model 'flowers' has no version 4; available: 1, 2, 3"):
        edit_policy(root, "flowers", change)
    assert not path.exists()


def test_a_version_deleted_meanwhile_stops_no_other_change(root: Path) -> None:
    edit_policy(root, "flowers", lambda policy: policy.with_canary(3, 0.5))
    (root / "flowers" / "3").rmdir()
    assert not edit_policy(root, "flowers", ServingPolicy.unloaded).loaded


def test_a_change_that_fails_leaves_the_policy_as_it_was(root: Path, path: Path) -> None:
    edit_policy(root, "flowers", pin_2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="a share over 0 and at most 1, got 5"):
        edit_policy(root, "flowers", lambda policy: policy.with_canary(1, 5))
    assert path.read_bytes() == before


def test_a_change_to_what_could_not_be_read_is_refused(root: Path, path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="field 'versions' is 'newest'; expected 'latest' or 'pinned' or 'all'"):
        edit_policy(root, "flowers", lambda policy: dataclasses.replace(policy, versions="newest"))
    assert not path.exists()


def test_a_broken_policy_is_not_overwritten(root: Path, path: Path) -> None:
    """It may say what nobody but its author knows."""
    path.write_text("{")
    with pytest.raises(PolicyInvalid):
        edit_policy(root, "flowers", pin_2)
    assert path.read_text() == "{"


def test_editors_take_turns_and_none_is_lost(root: Path) -> None:
    def add(number: int) -> ServingPolicy:
        return edit_policy(
            root, "flowers", lambda policy: dataclasses.replace(policy, previous=(*policy.previous, number))
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(1, 17)))
    assert sorted(read_policy(root, "flowers").previous) == list(range(1, 17))


def test_an_editor_waits_for_a_publisher(root: Path) -> None:
    edited = threading.Event()

    def edit() -> None:
        edit_policy(root, "flowers", pin_2)
        edited.set()

    with ThreadPoolExecutor(1) as pool:
        with files.locked_folder(root / "flowers"):
            waiting = pool.submit(edit)
            assert not edited.wait(0.2)
        waiting.result(timeout=60)
    assert read_policy(root, "flowers").stable == 2


EDIT = """
import os, signal, sys
from pathlib import Path
from anther import files
from bundle.policy import edit_policy

def die(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

os.fsync = die
edit_policy(Path(sys.argv[1]), "flowers", lambda policy: policy.pinned_to(2, 3))
"""


def test_a_killed_editor_changes_nothing_and_the_next_one_cleans_up(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", EDIT, root], check=False, cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(names(root / "flowers")) == 4, "the dead editor's file is still there"
    assert read_policy(root, "flowers") == ServingPolicy()
    edit_policy(root, "flowers", pin_2)
    assert names(root / "flowers") == ["1", "2", "3", POLICY]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from bundle.errors import PolicyNotWritable
from bundle.policy import edit_policy

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
try:
    edit_policy(Path(sys.argv[1]), "flowers", lambda policy: policy.pinned_to(2, 3))
except PolicyNotWritable as exc:
    print(exc)
"""


def test_a_policy_that_the_disk_does_not_take_is_a_sentence_and_changes_nothing(root: Path, path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, root]
    out = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert out.stdout.startswith(f"{path} cannot be written (File too large); the policy is as it was"), out.stderr
    assert names(path.parent) == ["1", "2", "3"]


EDIT_OR_SAY = """
import sys
from pathlib import Path
from bundle.errors import PolicyNotWritable
from bundle.policy import edit_policy

try:
    edit_policy(Path(sys.argv[1]), "flowers", lambda policy: policy.pinned_to(2, 3))
except PolicyNotWritable as exc:
    print(exc)
"""


def test_a_read_only_file_system_is_a_sentence(root: Path, path: Path, with_mount) -> None:
    mount = f"mount --bind {root} {root} && mount -o remount,bind,ro {root}"
    out = with_mount(mount, EDIT_OR_SAY, root)
    assert out.stdout.startswith(f"{path} cannot be written (Read-only file system); the policy is as"), out.stderr
    assert names(path.parent) == ["1", "2", "3"]
