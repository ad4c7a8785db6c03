"""A file of results over interruptions: nothing is lost, nothing is twice, and no other file comes to harm."""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anther.client.answers import Classification, Prediction
from anther.client.call_failed import CallFailed
from anther.files import temporary_path
from anther.results import journal as results_journal
from anther.results.errors import OutputBusy, OutputForeign, OutputNotWritable
from anther.results.formats import Csv, Format, JsonLines
from anther.results.journal import Journal, records

GOOD = Classification("flowers", 3, "cpu", True, (Prediction("daisy", 0, 0.75),), {})
NEWER = Classification("flowers", 4, "cpu", True, (Prediction("daisy", 0, 0.75),), {})
BAD = CallFailed("INVALID_ARGUMENT", "IMAGE_UNDECODABLE", "the JPEG data cannot be decoded")


@pytest.fixture(params=[JsonLines, Csv], ids=["jsonl", "csv"])
def form(request) -> Format:
    return request.param()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results"


def photos(path: Path, form: Format) -> list[str]:
    return [recorded.photo for _, recorded in records(path, form)]


def written(path: Path, form: Format, *names: str, outcome=GOOD) -> None:
    with Journal(path, form) as journal:
        for name in names:
            journal.add(Path(name), outcome)


def test_a_new_file_holds_what_is_added_in_this_order(path: Path, form: Format) -> None:
    with Journal(path, form) as journal:
        assert (len(journal), journal.made_by, journal.failed) == (0, set(), 0)
        journal.add(Path("b.jpg"), GOOD)
        journal.add(Path("a.jpg"), BAD)
        assert (len(journal), journal.added) == (2, 2)
    assert photos(path, form) == ["b.jpg", "a.jpg"]
    assert path.read_bytes().startswith(form.header)


def test_a_later_run_knows_what_is_in_it(path: Path, form: Format) -> None:
    written(path, form, "a.jpg", "caf\udce9\n.jpg")
    written(path, form, "bad.jpg", outcome=BAD)
    written(path, form, "new.jpg", outcome=NEWER)
    with Journal(path, form) as journal:
        assert (len(journal), journal.added, journal.failed) == (4, 0, 1)
        assert journal.made_by == {("flowers", 3), ("flowers", 4)}
        for name in ("a.jpg", "caf\udce9\n.jpg", "bad.jpg", "new.jpg"):
            assert Path(name) in journal
            assert Path(name).absolute() in journal
        assert Path("b.jpg") not in journal
        journal.add(Path("b.jpg"), GOOD)
    assert photos(path, form) == ["a.jpg", "caf\udce9\n.jpg", "bad.jpg", "new.jpg", "b.jpg"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wherever_a_run_was_killed_the_next_one_goes_on(path: Path, form: Format, data: st.DataObject) -> None:
    """What was written as a whole stays; of a torn record nothing."""
    names = ["a.jpg", 'quoted " name.jpg', "two\nlines.jpg", "caf\udce9.jpg"]
    path.unlink(missing_ok=True)
    written(path, form, *names)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with Journal(path, form) as journal:
        kept = [name for name in names if Path(name) in journal]
        assert kept == names[: len(journal)]
        for name in names[len(journal) :]:
            journal.add(Path(name), GOOD)
    assert path.read_bytes() == whole


def test_zeros_that_a_power_cut_left_are_cut_off(path: Path, form: Format) -> None:
    written(path, form, "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(100))
    with Journal(path, form):
        pass
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"Dear diary\n", b"no line's end", b"photo,score\na.jpg,1\n", b'{"photo": "a.jpg"}\n', bytes(100), b"\xff\n"],
)
def test_another_file_is_left_as_it_is(path: Path, form: Format, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OutputForeign, match="was not written by `anther classify`"):
        Journal(path, form)
    assert path.read_bytes() == content


def test_a_damaged_file_is_left_as_it_is(path: Path, form: Format) -> None:
    written(path, form, "a.jpg", "b.jpg")
    damaged = path.read_bytes().replace(b"flowers,3", b"flowers,three").replace(b'"version": 3', b'"version": "x"')
    path.write_bytes(damaged)
    with pytest.raises(OutputForeign, match="result 1"):
        Journal(path, form)
    assert path.read_bytes() == damaged


def test_one_run_at_a_time(path: Path, form: Format) -> None:
    with Journal(path, form) as journal:
        journal.add(Path("a.jpg"), GOOD)
        with pytest.raises(OutputBusy, match="being written by another run"):
            Journal(path, form)
    written(path, form, "b.jpg")
    assert photos(path, form) == ["a.jpg", "b.jpg"]


def test_failed_photos_are_forgotten_when_asked_to(path: Path, form: Format) -> None:
    written(path, form, "a.jpg")
    written(path, form, "bad.jpg", "worse.jpg", outcome=BAD)
    written(path, form, "b.jpg")
    with Journal(path, form, again=True) as journal:
        assert (len(journal), journal.failed) == (2, 0)
        assert Path("bad.jpg") not in journal
        assert Path("b.jpg") in journal
        with pytest.raises(OutputBusy):  # the new file is locked as the old one was
            Journal(path, form)
        journal.add(Path("bad.jpg"), GOOD)
    assert photos(path, form) == ["a.jpg", "b.jpg", "bad.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_without_failed_photos_there_is_nothing_to_forget(path: Path, form: Format) -> None:
    written(path, form, "a.jpg")
    before = path.stat().st_ino
    with Journal(path, form, again=True) as journal:
        assert len(journal) == 1
    assert path.stat().st_ino == before


def test_what_a_killed_rewriting_left_does_not_matter(path: Path, form: Format) -> None:
    written(path, form, "a.jpg")
    written(path, form, "bad.jpg", outcome=BAD)
    temporary_path(path).write_bytes(b"half a file")
    with Journal(path, form, again=True) as journal:
        assert len(journal) == 1
    assert photos(path, form) == ["a.jpg"]
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def small_files(path: Path) -> Iterator[None]:
    """No file may grow over that many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_says_so_and_the_next_run_goes_on(path: Path, form: Format, small_files) -> None:
    written(path, form, "a.jpg")
    size = path.stat().st_size
    with Journal(path, form) as journal:
        small_files(size + 20)
        with pytest.raises(OutputNotWritable, match="cannot be written"):
            journal.add(Path("b.jpg"), GOOD)
        small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert path.stat().st_size == size + 20  # half a record
    written(path, form, "b.jpg")
    assert photos(path, form) == ["a.jpg", "b.jpg"]


def test_a_full_disk_at_rewriting_leaves_the_file(path: Path, form: Format, small_files) -> None:
    written(path, form, "a.jpg", "b.jpg")
    written(path, form, "bad.jpg", outcome=BAD)
    before = path.read_bytes()
    small_files(len(form.header) + 20)
    with pytest.raises(OutputNotWritable):
        Journal(path, form, again=True)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, form: Format) -> None:
    with pytest.raises(OutputNotWritable, match="No such file or directory"):
        Journal(tmp_path / "none" / "results.jsonl", form)


def test_the_disk_is_waited_for_now_and_then(path: Path, form: Format, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Journal(path, form) as journal:
        opened = len(synced)
        monkeypatch.setattr(results_journal, "_SYNC_EVERY_S", 10**6)
        journal.add(Path("a.jpg"), GOOD)
        assert len(synced) == opened
        monkeypatch.setattr(results_journal, "_SYNC_EVERY_S", 0.0)
        journal.add(Path("b.jpg"), GOOD)
        assert len(synced) == opened + 1
    assert len(synced) == opened + 2


def test_photos_are_known_whichever_part_they_were_sorted_in(path: Path, form: Format, monkeypatch) -> None:
    monkeypatch.setattr(results_journal, "_RUN", 4)
    names = [f"{number}.jpg" for number in range(11)]
    written(path, form, *names)
    with Journal(path, form) as journal:
        assert len(journal) == 11
        assert all(Path(name) in journal for name in names)
        assert not any(Path(f"other-{name}") in journal for name in names)


def test_a_million_photos_take_eight_bytes_each(path: Path) -> None:
    form = JsonLines()
    with path.open("wb") as file:
        for number in range(5000):
            file.write(form.encode(f"{number}.jpg", GOOD))
    with Journal(path, form) as journal:
        assert journal._known.itemsize * len(journal._known) == 8 * 5000
        assert all(Path(f"{number}.jpg") in journal for number in range(5000))
        assert not any(Path(f"{number}.png") in journal for number in range(5000))
