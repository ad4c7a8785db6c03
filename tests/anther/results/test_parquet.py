"""Parquet over interruptions: the journal beside it becomes the file, and the file a journal again."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed; it comes with anther[parquet]")
parquet = pytest.importorskip("pyarrow.parquet")

from anther.client.answers import Classification, Prediction  # noqa: E402
from anther.client.call_failed import CallFailed  # noqa: E402
from anther.files import temporary_path  # noqa: E402
from anther.results import journal as journal_module  # noqa: E402
from anther.results import parquet as results_parquet  # noqa: E402
from anther.results.errors import OutputBusy, OutputForeign, OutputNotWritable  # noqa: E402
from anther.results.formats import JsonLines  # noqa: E402
from anther.results.journal import Journal  # noqa: E402
from anther.results.parquet import journal_of, opened  # noqa: E402

GOOD = Classification(
    "flowers", 3, "CPUExecutionProvider", True, (Prediction("daisy", 0, 0.75), Prediction("tulips", 4, 0.25)), {}
)
BAD = CallFailed("INVALID_ARGUMENT", "IMAGE_UNDECODABLE", "the JPEG data cannot be decoded")
ODD_NAME = b"caf\xe9.jpg"

NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name).map(os.fsdecode)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)
PREDICTIONS = st.builds(Prediction, TEXTS, st.integers(0, 999), st.floats(0, 1, width=32))
OUTCOMES = st.builds(
    Classification, TEXTS, st.integers(1, 10**9), TEXTS, st.booleans(),
    st.lists(PREDICTIONS, min_size=1, max_size=3).map(tuple), st.just({}),
) | st.builds(CallFailed, TEXTS, TEXTS, TEXTS)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.parquet"


def written(path: Path, *names: str, outcome=GOOD, again: bool = False) -> None:
    with opened(path, again) as journal:
        for name in names:
            journal.add(Path(name), outcome)


def interrupted(path: Path, *names: str) -> None:
    def run() -> None:
        with opened(path, again=False) as journal:
            for name in names:
                journal.add(Path(name), GOOD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()


def photos(path: Path) -> list[str]:
    return parquet.read_table(path).column("photo").to_pylist()


def test_an_answer_is_a_row(path: Path) -> None:
    written(path, "a.jpg")
    assert parquet.read_table(path).to_pylist() == [
        {
            "photo": "a.jpg",
            "path": b"a.jpg",
            "model": "flowers",
            "version": 3,
            "provider": "CPUExecutionProvider",
            "confident": True,
            "label": "daisy",
            "index": 0,
            "probability": 0.75,
            "predictions": [
                {"label": "daisy", "index": 0, "probability": 0.75},
                {"label": "tulips", "index": 4, "probability": 0.25},
            ],
            "error_code": None,
            "error_reason": None,
            "error_message": None,
        }
    ]
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_is_a_row_and_so_is_a_name_that_is_no_utf8(path: Path) -> None:
    written(path, os.fsdecode(ODD_NAME), outcome=BAD)
    (row,) = parquet.read_table(path).to_pylist()
    assert (row["photo"], row["path"]) == ("caf\\xe9.jpg", ODD_NAME)
    assert (row["error_code"], row["error_reason"]) == ("INVALID_ARGUMENT", "IMAGE_UNDECODABLE")
    assert (row["model"], row["version"], row["confident"], row["label"], row["predictions"]) == (*[None] * 4, [])


def test_an_interrupted_run_leaves_a_journal_that_the_next_one_goes_on_with(path: Path) -> None:
    interrupted(path, "a.jpg", "b.jpg")
    assert list(path.parent.iterdir()) == [journal_of(path)]
    with opened(path, again=False) as journal:
        assert Path("a.jpg") in journal
        journal.add(Path("c.jpg"), GOOD)
    assert photos(path) == ["a.jpg", "b.jpg", "c.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_had_only_the_end_left_comes_to_it(path: Path) -> None:
    interrupted(path, "a.jpg")
    written(path)
    assert photos(path) == ["a.jpg"]


def test_a_later_run_adds_to_the_file(path: Path) -> None:
    written(path, "a.jpg")
    with opened(path, again=False) as journal:
        assert Path("a.jpg") in journal
        assert journal.made_by == {("flowers", 3)}
        journal.add(Path("b.jpg"), GOOD)
    assert photos(path) == ["a.jpg", "b.jpg"]


def test_a_later_run_with_nothing_to_add_leaves_the_file_alone(path: Path) -> None:
    written(path, "a.jpg")
    before = path.stat()
    written(path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(path.parent.iterdir()) == [path]


def test_failed_photos_are_asked_again(path: Path) -> None:
    written(path, "a.jpg")
    written(path, "bad.jpg", outcome=BAD)
    with opened(path, again=True) as journal:
        assert Path("bad.jpg") not in journal
        journal.add(Path("bad.jpg"), GOOD)
    assert photos(path) == ["a.jpg", "bad.jpg"]
    assert parquet.read_table(path).column("error_code").to_pylist() == [None, None]


def test_an_interrupted_addition_keeps_what_the_file_held(path: Path) -> None:
    written(path, "a.jpg")
    interrupted(path, "b.jpg")
    assert photos(path) == ["a.jpg"]
    written(path, "c.jpg")
    assert photos(path) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_run_killed_between_the_file_and_the_journals_end_writes_it_again(path: Path) -> None:
    interrupted(path, "a.jpg")
    journal = journal_of(path).read_bytes()
    written(path)
    journal_of(path).write_bytes(journal)  # it had not been deleted yet
    written(path, "b.jpg")
    assert photos(path) == ["a.jpg", "b.jpg"]


def test_half_a_file_of_a_killed_run_is_never_taken(path: Path) -> None:
    interrupted(path, "a.jpg")
    temporary_path(path).write_bytes(b"PAR1 half")
    temporary_path(journal_of(path)).write_bytes(b"half")
    written(path, "b.jpg")
    assert photos(path) == ["a.jpg", "b.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_a_conversion_that_fails_leaves_the_journal(path: Path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results_parquet, "_row", full)
        with pytest.raises(OutputNotWritable, match=r"results.parquet cannot be written \(No space left on device\)"):
            written(path, "a.jpg")
    assert list(path.parent.iterdir()) == [journal_of(path)]
    written(path)
    assert photos(path) == ["a.jpg"]


def test_of_two_runs_that_start_at_once_one_is_refused(path: Path, monkeypatch) -> None:
    """The second one starts while the first unpacks the file, of which neither must lose anything."""
    written(path, "a.jpg")
    unpacked = results_parquet._rows

    def crossed(unpacking: Path) -> Iterator[dict[str, Any]]:
        monkeypatch.setattr(results_parquet, "_rows", unpacked)
        with pytest.raises(OutputBusy):
            written(path, "c.jpg")
        return unpacked(unpacking)

    monkeypatch.setattr(results_parquet, "_rows", crossed)
    written(path, "b.jpg")
    assert results_parquet._rows is unpacked
    assert photos(path) == ["a.jpg", "b.jpg"]


def test_a_run_that_starts_as_another_ends_adds_to_its_file(path: Path, monkeypatch) -> None:
    """The journal that it has opened is gone when it gets the lock."""
    first = opened(path, again=False)
    first.__enter__().add(Path("a.jpg"), GOOD)
    lock = journal_module.lock

    def late(descriptor: int, *, wait: bool) -> None:
        monkeypatch.setattr(journal_module, "lock", lock)
        first.__exit__(None, None, None)
        lock(descriptor, wait=wait)

    monkeypatch.setattr(journal_module, "lock", late)
    written(path, "b.jpg")
    assert photos(path) == ["a.jpg", "b.jpg"]
    assert list(path.parent.iterdir()) == [path]


def test_a_run_that_was_killed_before_it_unpacked_the_file_loses_nothing(path: Path) -> None:
    written(path, "a.jpg")
    journal_of(path).touch()
    written(path, "b.jpg")
    assert photos(path) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"Dear diary\n"])
def test_another_file_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(OutputForeign):
        written(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_another_table_is_left_as_it_is(path: Path) -> None:
    parquet.write_table(pa.table({"photo": ["a.jpg"]}), path)
    before = path.read_bytes()
    with pytest.raises(OutputForeign, match="other columns than photo, path,"):
        written(path)
    assert path.read_bytes() == before


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results=st.lists(st.tuples(NAMES, OUTCOMES), max_size=7))
def test_the_file_holds_what_the_journal_held(tmp_path: Path, monkeypatch, results) -> None:
    """Packed in row groups of two, and unpacked again: byte for byte the journal that a run would have written."""
    monkeypatch.setattr(results_parquet, "_ROW_GROUP", 2)
    path, plain = tmp_path / "results.parquet", tmp_path / "results.jsonl"
    for old in (path, plain):
        old.unlink(missing_ok=True)
    with opened(path, again=False) as packed, Journal(plain, JsonLines()) as journal:
        for name, outcome in results:
            packed.add(Path(name), outcome)
            journal.add(Path(name), outcome)
    assert parquet.ParquetFile(path).num_row_groups == (len(results) + 1) // 2
    with opened(path, again=False):
        assert journal_of(path).read_bytes() == plain.read_bytes()
