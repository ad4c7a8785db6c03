import os
import shutil

import pytest

from training.publishing.arrivals import Arrivals

ENOUGH = 100


class Counting(Arrivals):
    """Notes which files it reads."""

    def __init__(self, root):
        super().__init__(root)
        self.read = []

    def _read(self, path):
        self.read.append(path)
        return super()._read(path)


@pytest.fixture
def root(tmp_path, draw):
    for number in range(3):
        draw(tmp_path, "red", number)
    return tmp_path


def new(arrivals, known=frozenset(), enough=ENOUGH):
    return arrivals.new(arrivals.snapshot(), known, enough)


def test_only_photos_in_class_folders_count(root, draw):
    (root / "notes.txt").write_text("no class")
    (root / "red" / "broken.png").write_bytes(b"x")
    (root / "red" / ".hidden.png").write_bytes(b"x")
    (root / ".trash").mkdir()
    draw(root, "red/deeper", 7)
    arrivals = Arrivals(root)
    assert set(arrivals.snapshot()) == {f"red/00{number}.png" for number in range(3)} | {
        "red/broken.png",
        "red/deeper/007.png",
    }
    assert new(arrivals) == 4


def test_a_renamed_or_copied_photo_is_not_new_but_one_of_another_class_is(root):
    arrivals = Arrivals(root)
    known = arrivals.keys(arrivals.snapshot())
    (root / "red" / "000.png").rename(root / "red" / "other.png")
    shutil.copy(root / "red" / "001.png", root / "red" / "copy.png")
    assert new(arrivals, known) == 0
    (root / "blue").mkdir()
    (root / "red" / "002.png").rename(root / "blue" / "002.png")
    assert new(arrivals, known) == 1


def test_a_file_is_read_again_only_when_it_was_changed(root, draw):
    arrivals = Counting(root)
    new(arrivals)
    assert sorted(arrivals.read) == ["red/000.png", "red/001.png", "red/002.png"]
    arrivals.read.clear()
    assert new(arrivals) == 3
    arrivals.keys(arrivals.snapshot())
    assert arrivals.read == []
    draw(root, "red", 1).write_bytes((root / "red" / "000.png").read_bytes())
    os.utime(root / "red" / "001.png", ns=(1, 1))
    assert new(arrivals) == 2
    assert arrivals.read == ["red/001.png"]


def test_counting_ends_where_there_are_enough(root):
    arrivals = Counting(root)
    assert new(arrivals, enough=2) == 2
    assert len(arrivals.read) == 2


def test_a_file_that_cannot_be_read_is_passed_over(root):
    arrivals = Arrivals(root)
    snapshot = arrivals.snapshot()
    (root / "red" / "000.png").unlink()
    assert arrivals.new(snapshot, set(), ENOUGH) == 2
    assert len(arrivals.keys(snapshot)) == 2


def test_a_photo_that_went_between_two_looks_at_it_is_no_photo(root):
    arrivals = Arrivals(root)
    snapshot = arrivals.snapshot()
    arrivals.keys(snapshot)
    (root / "red" / "000.png").unlink()
    assert arrivals.new(snapshot, set(), ENOUGH) == 2


def test_there_may_be_no_folder_yet(tmp_path):
    assert Arrivals(tmp_path / "absent").snapshot() == {}


def test_a_class_may_be_a_link_but_no_folder_below_it(root, tmp_path_factory, draw):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    draw(elsewhere, "blue", 1)
    (root / "blue").symlink_to(elsewhere / "blue")
    (elsewhere / "blue" / "round").symlink_to(elsewhere / "blue")
    os.mkfifo(root / "red" / "pipe")
    assert {path for path in Arrivals(root).snapshot() if "00" not in path or "blue" in path} == {"blue/001.png"}
