"""Which files of a folder are pictures, in which order, and that no more of them are in memory than need be."""

import os
import shutil
import socket
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anther import photos
from anther.photos import SUFFIXES, digest, walk


@pytest.fixture
def tree(tmp_path: Path):
    """`tree("a/b.jpg", …)` makes empty files below a folder."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "photos"

    return make


def below(root: Path, *arguments: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in walk(arguments or (root,))]


def test_a_folder_is_walked_in_the_order_of_its_names(tree) -> None:
    root = tree("b/2.jpg", "b/1.png", "a/z/deep.tif", "a/x.gif", "c.webp", "a.bmp")
    assert below(root) == ["a.bmp", "a/x.gif", "a/z/deep.tif", "b/1.png", "b/2.jpg", "c.webp"]


def test_pictures_are_known_by_the_end_of_their_name(tree) -> None:
    root = tree("a.JPG", "b.Jpeg", "c.txt", "jpg", ".jpg", "d.jpg.part", "e.tiff")
    assert below(root) == ["a.JPG", "b.Jpeg", "e.tiff"]
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"} == SUFFIXES


def test_a_folder_with_a_pictures_name_is_a_folder(tree) -> None:
    assert below(tree("album.jpg/one.jpg")) == ["album.jpg/one.jpg"]


def test_links_to_pictures_are_taken_and_links_to_folders_are_not(tree, tmp_path: Path) -> None:
    root = tree("real/one.jpg")
    (root / "link.jpg").symlink_to(root / "real/one.jpg")
    (root / "up").symlink_to(tmp_path)
    (root / "up.jpg").symlink_to(tmp_path)
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "nowhere.jpg").symlink_to(root / "nothing")
    assert below(root) == ["circle.jpg", "link.jpg", "nowhere.jpg", "real/one.jpg"]


def test_what_might_never_end_is_passed_over_in_folders_and_read_where_it_is_named(tree) -> None:
    root = tree("real.jpg")
    os.mkfifo(root / "pipe.jpg")
    (root / "to-pipe.jpg").symlink_to(root / "pipe.jpg")
    (root / "to-device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket.jpg"))
    assert below(root) == ["real.jpg"]
    assert below(root, root, root / "pipe.jpg") == ["real.jpg", "pipe.jpg"]


def test_a_named_file_is_taken_whatever_it_is(tree) -> None:
    root = tree("notes.txt", "a.jpg")
    assert below(root, root / "notes.txt", root / "missing.jpg") == ["notes.txt", "missing.jpg"]


def test_what_is_named_twice_is_taken_once(tree, monkeypatch) -> None:
    root = tree("a/1.jpg", "a/2.jpg", "b/3.jpg")
    arguments = [root / "b/3.jpg", root / "a", root / "a/2.jpg", root / "a/../a", root / "b/3.jpg"]
    assert below(root, *arguments) == ["b/3.jpg", "a/1.jpg", "a/2.jpg"]
    monkeypatch.chdir(root)
    assert [str(path) for path in walk([Path("a"), root / "a"])] == ["a/1.jpg", "a/2.jpg"]


def test_what_is_named_below_a_named_folder_is_not_lost(tree, tmp_path: Path) -> None:
    """Nobody would come by it: a file that is not there or no picture by its name, a folder behind a link."""
    root = tree("a/1.jpg", "notes.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.jpg").touch()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    named = [root, root / "missing.jpg", root / "notes.txt", root / "link", root / "a"]
    assert below(root, *named) == ["a/1.jpg", "missing.jpg", "notes.txt", "link/2.jpg"]


def test_a_folder_that_cannot_be_listed_comes_in_place_of_its_pictures(tree) -> None:
    root = tree("a/1.jpg", "b/2.jpg", "c/3.jpg")
    paths = walk([root])
    assert next(paths) == root / "a/1.jpg"
    shutil.rmtree(root / "b")
    assert list(paths) == [root / "b", root / "c/3.jpg"]


def test_a_named_folder_that_vanishes_comes_itself(tree) -> None:
    root = tree("a/1.jpg", "b/2.jpg")
    paths = walk([root / "a", root / "b"])
    assert next(paths) == root / "a/1.jpg"
    shutil.rmtree(root / "b")
    assert list(paths) == [root / "b"]


def test_folders_are_listed_when_their_turn_comes(tree) -> None:
    root = tree("a/1.jpg", "b/2.jpg")
    paths = walk([root])
    assert next(paths) == root / "a/1.jpg"
    tree("b/late.jpg")
    assert list(paths) == [root / "b/2.jpg", root / "b/late.jpg"]


def test_more_names_than_are_sorted_at_once_come_in_order(tree, monkeypatch) -> None:
    monkeypatch.setattr(photos, "_PIECE", 3)
    names = [f"{number:02}.jpg" for number in range(20)]
    root = tree(*reversed(names), "05/a.jpg", "x/b.jpg")
    assert below(root) == [*names[:5], "05.jpg", "05/a.jpg", *names[6:], "x/b.jpg"]


def test_without_an_order_the_same_is_found(tree) -> None:
    root = tree("b/2.jpg", "b/1.png", "a/z/deep.tif", "c.webp", "notes.txt")
    os.mkfifo(root / "pipe.jpg")
    named = [root, root / "pipe.jpg", root / "b/1.png", root / "a"]
    assert sorted(walk(named, in_order=False)) == sorted(walk(named))
    assert len(list(walk(named, in_order=False))) == 5


MANY = 50_000


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        (root / f"IMG_{number:08}.jpg").touch()
    return root


@pytest.mark.parametrize(("in_order", "most"), [(True, 30), (False, 1)])
def test_a_folder_of_many_photos_takes_few_bytes_a_name(many: Path, in_order: bool, most: int) -> None:
    """Until the first of them is there; for these names of 16 letters a sorted list of strings takes 78."""
    tracemalloc.start()
    try:
        paths = walk([many], in_order=in_order)
        assert next(paths).suffix == ".jpg"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / MANY < most
    assert sum(1 for _ in paths) == MANY - 1


def test_any_depth_is_walked(tmp_path: Path) -> None:
    """Deeper than Python's own recursion would go."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        inside = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inside
    os.close(os.open("deep.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        found = list(walk([top]))
    finally:  # it is too deep for those who clear up after tests
        subprocess.run(["rm", "-r", top], check=True)
    assert [len(path.parts) for path in found] == [len(top.parts) + 1201]


NAMES = st.text(st.sampled_from("ab.jpg/ é\n\udce9"), min_size=1, max_size=12).filter(
    lambda name: not any(part in {"", ".", ".."} for part in name.split("/"))
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, max_size=12))
def test_every_picture_of_any_tree_is_found_once(tmp_path: Path, names: list[str]) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in names:
        path = root / name
        if not any(above.is_file() for above in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    found = list(walk([root]))
    assert sorted(found) == sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in SUFFIXES)
    assert found == list(walk([root]))
    assert sorted(walk([root], in_order=False)) == sorted(found)


def test_a_photo_is_the_same_however_its_path_is_written(tree, monkeypatch) -> None:
    root = tree("a/1.jpg", "a/2.jpg")
    monkeypatch.chdir(root)
    same = ["a/1.jpg", Path("a/1.jpg"), "./a/1.jpg", root / "a/1.jpg", "a/../a/1.jpg"]
    assert {digest(path) for path in same} == {digest(root / "a/1.jpg")}
    assert digest("a/2.jpg") != digest("a/1.jpg")
    assert len(digest("caf\udce9.jpg")) == 16
