"""A file of results that grows by a record a photo, and from which an interrupted run goes on.

A record is one write at the file's end: a killed process leaves at most half a last one, which the next run cuts off.
About once a second the disk is waited for: a power cut costs the photos of that second, which are then asked for again.
Records that failed are taken out by a second file that takes the first one's place in one rename.
"""

import contextlib
import heapq
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

from anther.files import flush_folder, lock, replacing, sweep
from anther.photos import digest
from anther.results.errors import OutputBusy, OutputForeign, OutputNotWritable
from anther.results.formats import Format, Recorded
from anther.results.record import Outcome

_SYNC_EVERY_S = 1.0
_RUN = 2**16  # digests that are sorted at once, and then merged: a list of all would take five times their memory


def records(path: Path, form: Format) -> Iterator[tuple[bytes, Recorded]]:
    """The whole records of a file, without a torn last one. Raises `OutputForeign`."""
    with path.open("rb") as file:
        if not _has_header(path, form, file.read(len(form.header))):
            return
        for number, (data, whole) in enumerate(form.split(file), 1):
            if not whole:
                begun = data.startswith(form.prefix) or form.prefix.startswith(data)
                if number == 1 and not begun:
                    raise OutputForeign(path, "its beginning", "no result")
                return
            try:
                recorded = form.decode(data)
            except ValueError as exc:
                raise OutputForeign(path, f"result {number}", str(exc)) from exc
            yield data, recorded


class Journal:
    """Written by one process at a time. `made_by` are the models and versions of its answers, `failed` counts the rest.

    A photo in it takes 8 bytes of memory; among a million, two look the same once in 40 million runs.
    """

    def __init__(
        self, path: Path, form: Format, again: bool = False, earlier: Callable[[], Iterable[bytes]] | None = None
    ) -> None:
        """`again` forgets the photos that failed. `earlier` gives the records that an empty file begins with.

        Raises `OutputRefused`, and then has changed nothing.
        """
        self.path, self._form = path, form
        self.made_by: set[tuple[str, int]] = set()
        self.added = self.failed = 0
        with disk_errors_mapped(path):
            self._file = _locked(path)
            self.begun = os.fstat(self._file.fileno()).st_size > 0  # by an earlier run
            try:
                if earlier is not None and not self.begun:
                    self._begin(earlier())
                self._known, end = self._read()
                if again and self.failed:
                    with self._file:
                        self._file = self._rewritten(self._without_failed())
                    self._known, end = self._read()
                self._repair(end)
                self._sync()
                flush_folder(path.parent)
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with disk_errors_mapped(self.path), self._file:
            self._sync()

    def __len__(self) -> int:
        return len(self._known) + self.added

    def __contains__(self, photo: Path) -> bool:
        """Of what was in it when it was opened."""
        short = _short(photo)
        place = bisect_left(self._known, short)
        return place < len(self._known) and self._known[place] == short

    def add(self, photo: Path, outcome: Outcome) -> None:
        """Raises `OutputNotWritable`."""
        with disk_errors_mapped(self.path):
            _write_all(self._file, self._form.encode(str(photo), outcome))
            if time.monotonic() - self._synced >= _SYNC_EVERY_S:
                self._sync()
        self.added += 1

    def _read(self) -> tuple["array[int]", int]:
        """Short digests of the photos in it, sorted, and where its last whole record ends."""
        runs, end = [array("Q")], len(self._form.header)
        self.made_by.clear()
        self.failed = 0
        for data, recorded in records(self.path, self._form):
            end += len(data)
            runs[-1].append(_short(recorded.photo))
            if len(runs[-1]) == _RUN:
                runs[-1] = array("Q", sorted(runs[-1]))
                runs.append(array("Q"))
            if recorded.made_by is None:
                self.failed += 1
            else:
                self.made_by.add(recorded.made_by)
        runs[-1] = array("Q", sorted(runs[-1]))
        return array("Q", heapq.merge(*runs)), end

    def _repair(self, end: int) -> None:
        """Cut off a torn record; give a new file, or one whose header is torn, its header."""
        if self._file.seek(0, os.SEEK_END) < len(self._form.header):
            self._file.truncate(0)
            _write_all(self._file, self._form.header)
        else:
            self._file.truncate(end)

    def _begin(self, records: Iterable[bytes]) -> None:
        """Where they cannot be read, the empty file is gone again."""
        with self._file:
            try:
                self._file = self._rewritten(records)
            except BaseException:
                self.path.unlink()
                raise

    def _without_failed(self) -> Iterator[bytes]:
        return (data for data, recorded in records(self.path, self._form) if recorded.made_by is not None)

    def _rewritten(self, records: Iterable[bytes]) -> FileIO:
        """The file anew. It is locked before it takes the old one's place, so that no other run comes in between."""
        sweep(self.path.parent, self.path.name)
        with replacing(self.path) as temporary:
            file = _locked(temporary)
            try:
                _write_all(file, self._form.header)
                for data in records:
                    _write_all(file, data)
            except BaseException:
                file.close()
                raise
        return file

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _short(photo: str | Path) -> int:
    return int.from_bytes(digest(photo)[:8])


def _locked(path: Path) -> FileIO:
    """The file that is there once it is locked: the run that held it before may have removed or replaced it."""
    while True:
        file = FileIO(path, "a")
        try:
            lock(file.fileno(), wait=False)
            if _is_at(path, file):
                return file
        except BlockingIOError as exc:
            file.close()
            raise OutputBusy(path) from exc
        file.close()


def _is_at(path: Path, file: FileIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _write_all(file: FileIO, data: bytes) -> None:
    """A disk that is nearly full takes a part."""
    while data:
        data = data[file.write(data) :]


def _has_header(path: Path, form: Format, begun: bytes) -> bool:
    """False where not even the header was written as a whole."""
    if not form.header.startswith(begun):
        raise OutputForeign(path, "its beginning", f"other columns than {form.header.decode().strip()}")
    return begun == form.header


@contextlib.contextmanager
def disk_errors_mapped(path: Path) -> Iterator[None]:
    """What the disk does not take is an `OutputNotWritable`."""
    try:
        yield
    except OSError as exc:
        raise OutputNotWritable(path, exc.strerror or str(exc)) from exc
