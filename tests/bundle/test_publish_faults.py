"""Publishing that is killed anywhere, or that the disk refuses: nothing half-published, and the next one works."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(make_bundle, tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("source") / "bundle")


def run(script: str, *arguments: Path) -> list[dict[str, Any]]:
    """What the script prints, one JSON document a line."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return lines_of(subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=240))


def lines_of(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Killed

KILLED_AT_EVERY_STEP = """
import itertools, json, os, shutil, signal, sys
from pathlib import Path
from bundle.repository import Repository

source, root = Path(sys.argv[1]), Path(sys.argv[2])
repository = Repository(root)
touches = itertools.count()

def copy(folder):
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, folder / path.name)

def publish_until(last):
    def hook(event, arguments):
        if any(str(root) in str(argument) for argument in arguments) and next(touches) == last:
            print(event, arguments[:2], file=sys.stderr)
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    repository.publish("flowers", copy)
    os._exit(0)

for last in itertools.count():
    before = repository.versions("flowers")
    if (child := os.fork()) == 0:
        publish_until(last)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = repository.versions("flowers")
    opened = [repository.open("flowers", version).version for version in seen]
    left = len(list(root.glob("flowers/.staging-*")))
    next_one = repository.publish("flowers", copy).version
    after = len(list(root.glob("flowers/.staging-*")))
    print(json.dumps({"status": status, "new": len(seen) - len(before), "opened": opened == seen, "left": left,
                      "next": next_one == len(seen) + 1, "after": after}), flush=True)
    if status == 0:
        break
    shutil.rmtree(root / "flowers" / str(next_one))  # so that the folder does not grow with every step
"""


def test_killed_at_any_touch_of_the_disk_it_leaves_a_whole_version_or_none(source: Path, tmp_path: Path) -> None:
    """SIGKILL right before everything that publishing opens, makes, lists or renames."""
    steps = run(KILLED_AT_EVERY_STEP, source, tmp_path / "models")
    assert len(steps) > 25
    assert [step["status"] for step in steps] == [-signal.SIGKILL] * (len(steps) - 1) + [0]
    assert all(step["opened"] for step in steps), "what is visible is whole"
    assert all(step["next"] for step in steps), "the next one is published under the next number"
    assert all(step["after"] == 0 for step in steps), "and has cleaned up"
    assert {(step["new"], step["left"]) for step in steps} == {(0, 0), (0, 1), (1, 0)}, "before, within and after"
    news = [step["new"] for step in steps]
    assert news == sorted(news), "one step makes it visible"


# Refused by the disk

PUBLISH = """
import json, shutil, sys
from pathlib import Path
from bundle.errors import NotPublished
from bundle.repository import Repository

def publish(source, root):
    repository = Repository(root)

    def copy(folder):
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, folder / path.name)

    try:
        repository.publish("flowers", copy)
        error = ""
    except NotPublished as exc:
        error = str(exc)
    left = [path.name for path in (root / "flowers").iterdir() if not path.name.isdigit()]
    print(json.dumps({"error": error, "versions": repository.versions("flowers"), "left": left}), flush=True)

source, root = Path(sys.argv[1]), Path(sys.argv[2])
"""

FILL_AND_PUBLISH = (
    PUBLISH
    + """
publish(source, root)
room = shutil.disk_usage(root).free
size = sum(path.stat().st_size for path in source.iterdir())
(root / "filler").write_bytes(bytes(room - size // 2))
publish(source, root)
(root / "filler").unlink()
publish(source, root)
"""
)


def test_a_full_disk_is_a_sentence_and_leaves_room_for_the_next(source: Path, tmp_path: Path, with_mount) -> None:
    """A disk in memory with room for half of the second version."""
    disk = tmp_path / "disk"
    disk.mkdir()
    first, full, later = lines_of(
        with_mount(f"mount -t tmpfs -o size=32m tmpfs {disk}", FILL_AND_PUBLISH, source, disk)
    )
    assert first == {"error": "", "versions": [1], "left": []}
    assert full["error"].startswith(
        f"publishing into {disk}/flowers failed (No space left on device); earlier versions"
    )
    assert (full["versions"], full["left"]) == ([1], [])
    assert later == {"error": "", "versions": [1, 2], "left": []}


def test_a_read_only_disk_is_a_sentence(source: Path, tmp_path: Path, with_mount) -> None:
    (tmp_path / "flowers").mkdir()
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}"
    (refused,) = lines_of(with_mount(mount, f"{PUBLISH}\npublish(source, root)", source, tmp_path))
    assert refused["error"].startswith(f"publishing into {tmp_path}/flowers failed (Read-only file system); earlier")
    assert (refused["versions"], refused["left"]) == ([], [])


PUBLISH_BY_QUOTA = (
    PUBLISH
    + """
import resource, signal

publish(source, root)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
for size in (0, 1, 1000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    publish(source, root)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
publish(source, root)
"""
)


def test_a_file_that_the_system_cuts_short_is_never_published(source: Path, tmp_path: Path) -> None:
    """A limit on the size of files stops writing after 0, 1, 1,000 and 20,000 bytes, as a quota would."""
    first, *stopped, later = run(PUBLISH_BY_QUOTA, source, tmp_path)
    assert first["versions"] == [1]
    assert len(stopped) == 4
    for refused in stopped:
        assert "failed (File too large); earlier versions are untouched" in refused["error"]
        assert (refused["versions"], refused["left"]) == ([1], [])
    assert later == {"error": "", "versions": [1, 2], "left": []}


# What stands in the way


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link"])
def test_whatever_is_called_staging_is_removed_and_nothing_behind_it(publish_bundle, tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep")
    stale = tmp_path / "models" / "flowers" / ".staging-old"
    stale.parent.mkdir(parents=True)
    if kind == "folder":
        (stale / "deep").mkdir(parents=True)
    elif kind == "file":
        stale.write_text("")
    else:
        stale.symlink_to(precious if kind == "link" else "nowhere")
    assert publish_bundle(tmp_path / "models") == 1
    assert [path.name for path in stale.parent.iterdir()] == ["1"]
    assert (precious / "file").read_text() == "keep"


def test_a_number_taken_by_a_dangling_link_is_passed_over(publish_bundle, tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "1").symlink_to("nowhere")
    assert publish_bundle(tmp_path) == 2
