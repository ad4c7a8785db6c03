"""Files read without following anything, and replaced whole or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from anther import files

ROOT = Path(__file__).parents[2]


def test_a_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes, more than the 4 that are read"):
        files.read_regular(tmp_path / "file", 4)


def test_a_huge_file_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    """A terabyte without a block on disk: reading any of it would show."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes, more than"):
        files.read_regular(tmp_path / "file", 2**31)


def test_a_second_name_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """As after `cp -al`, in deduplicated backups, package caches and image layers."""
    (tmp_path / "file").write_bytes(b"12345")
    os.link(tmp_path / "file", tmp_path / "other")
    assert files.read_regular(tmp_path / "other", 5) == b"12345"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "device"])
def test_anything_else_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "link":
        (tmp_path / "file").write_bytes(b"12345")
        path.symlink_to("file")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        files.read_regular(path, 2**20)


class Swapped(type(Path())):  # type: ignore[misc]  # the class of this platform's paths
    """A path that another process replaces right after it was looked at."""

    def lstat(self) -> os.stat_result:
        return Path(__file__).lstat()


def test_what_takes_the_files_place_in_the_last_moment_is_refused_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        files.read_regular(Swapped(tmp_path / "pipe"), 2**20)
    (tmp_path / "link").symlink_to(__file__)
    with pytest.raises(OSError, match="symbolic link"):
        files.read_regular(Swapped(tmp_path / "link"), 2**20)


def test_a_file_is_replaced_with_nothing_left_beside_it(tmp_path: Path) -> None:
    for data in (b"first", b"second"):
        files.replace(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "file").symlink_to("target")
    files.replace(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()


def test_what_cannot_be_replaced_stays_with_nothing_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "content").write_bytes(b"precious")
    with pytest.raises(IsADirectoryError):
        files.replace(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_created_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    with pytest.raises(FileNotFoundError):
        files.replace(path, b"data")
    files.replace(path, b"data", make_folder=True)
    assert path.read_bytes() == b"data"


def test_file_and_folder_are_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the name changes, the name before it returns."""
    flushed: list[tuple[Path, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    files.replace(tmp_path / "file", b"data")
    (temporary, before), folder = flushed
    assert (temporary.parent, before) == (tmp_path, False)
    assert folder == (tmp_path, True)


def test_a_body_that_raises_leaves_the_file_and_nothing_beside_it(tmp_path: Path) -> None:
    files.replace(tmp_path / "file", b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "file") as temporary:
        _ = temporary.write_bytes(b"half") / 0
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_replaced_passes_on_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mode in (0o640, 0o600, 0o444):
        path.touch()
        path.chmod(mode)
        files.replace(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == mode
        path.unlink()


def test_a_link_passes_on_no_mode(tmp_path: Path) -> None:
    (tmp_path / "target").touch(mode=0o600)
    (tmp_path / "file").symlink_to("target")
    files.replace(tmp_path / "file", b"new")
    files.replace(tmp_path / "fresh", b"new")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "fresh").stat().st_mode


def test_nothing_changes_where_the_folder_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that may be written and searched, but not read."""
    (tmp_path / "file").write_bytes(b"old")
    real = os.open

    def refused(path: os.PathLike[str], flags: int, *rest: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    files.replace(tmp_path / name, b"data")
    assert (tmp_path / name).read_bytes() == b"data"
    left_by_killed_writers(tmp_path / name)
    kept = [tmp_path / name, files.temporary_path(tmp_path / f"{name[:-1]}y")]
    kept[1].write_bytes(b"kept")
    files.sweep(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def left_by_killed_writers(path: Path) -> None:
    files.temporary_path(path).write_bytes(b"half")
    files.temporary_path(path).mkdir()
    files.temporary_path(path).symlink_to("nowhere")


@pytest.mark.parametrize("name", ["file", "a*b", "[x]"])
def test_a_sweep_removes_what_killed_writers_of_a_file_left(tmp_path: Path, name: str) -> None:
    left_by_killed_writers(tmp_path / name)
    kept = [tmp_path / name, tmp_path / f".{name}-1", files.temporary_path(tmp_path / f"{name}-2")]
    for path in kept:
        path.write_bytes(b"kept")
    files.sweep(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_sweep_of_the_folder_removes_what_was_left_of_any_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        left_by_killed_writers(tmp_path / name)
    (tmp_path / ".hidden").write_bytes(b"kept")
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


HOLD = """
import sys
from pathlib import Path
from anther import files

with files.locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_turn_of_a_killed_process_is_given_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        with files.locked_folder(tmp_path):
            assert holder.wait(timeout=60) != 0


def test_a_held_folder_is_refused_to_who_does_not_wait(tmp_path: Path) -> None:
    with files.locked_folder(tmp_path):
        with pytest.raises(BlockingIOError), files.locked_folder(tmp_path, wait=False):
            pytest.fail("two held it at once")
        assert list(tmp_path.iterdir()) == []
    with files.locked_folder(tmp_path, wait=False):
        """Free again."""
