"""Results as Parquet, which cannot be appended to: while a run lasts they are a journal beside the file.

The journal becomes the file when the run comes to its end, and a file becomes a journal again where a later run adds to
it. Each step is one rename, and wherever both are there the journal holds everything.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from anther.files import replacing, sweep
from anther.results.errors import OutputForeign
from anther.results.formats import JsonLines
from anther.results.journal import Journal, disk_errors_mapped, records

_PREDICTION = {"label": pa.string(), "index": pa.int32(), "probability": pa.float32()}
_ERROR = {"error_code": pa.string(), "error_reason": pa.string(), "error_message": pa.string()}
SCHEMA = pa.schema(
    {
        "photo": pa.string(),  # what of the name is not UTF-8 is written as \\xe9
        "path": pa.binary(),  # the name as the file system has it
        "model": pa.string(),
        "version": pa.int64(),
        "provider": pa.string(),
        "confident": pa.bool_(),
        **_PREDICTION,  # of the most probable class
        "predictions": pa.list_(pa.struct(_PREDICTION)),
        **_ERROR,
    }
)
_ROW_GROUP = 20_000  # rows that are in memory at once


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.jsonl")


@contextlib.contextmanager
def opened(path: Path, again: bool) -> Iterator[Journal]:
    """The journal to add to; it becomes the file where the body does not raise. Raises what `Journal` does."""
    partial = journal_of(path)
    with Journal(partial, JsonLines(), again, lambda: _unpacked(path)) as journal:
        yield journal
        with disk_errors_mapped(path):
            if journal.begun or journal.added or not path.exists():
                _pack(partial, path)
            partial.unlink()


def _pack(partial: Path, path: Path) -> None:
    """The caller holds the journal's lock."""
    for file in (partial, path):
        sweep(path.parent, file.name)
    lines = (data for data, _ in records(partial, JsonLines()))
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while group := list(itertools.islice(lines, _ROW_GROUP)):
            rows = [_row(json.loads(line)) for line in group]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, SCHEMA))


def _unpacked(path: Path) -> Iterator[bytes]:
    """The file's rows as a journal's records; none where there is no file yet."""
    if path.exists():
        for row in _rows(path):
            yield f"{json.dumps(_record(row))}\n".encode("ascii")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise OutputForeign(path, "its schema", f"other columns than {', '.join(SCHEMA.names)}")
            for batch in file.iter_batches(_ROW_GROUP):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as exc:
        raise OutputForeign(path, "its beginning", str(exc)) from exc


def _row(found: dict[str, Any]) -> dict[str, Any]:
    name = os.fsencode(found["photo"])
    best: Iterable[dict[str, Any]] = found["predictions"][:1]
    error = found["error"] or {}
    return {
        **found,
        "photo": name.decode(errors="backslashreplace"),
        "path": name,
        **dict(itertools.chain.from_iterable(prediction.items() for prediction in best)),
        **{f"error_{key}": value for key, value in error.items()},
    }


def _record(row: dict[str, Any]) -> dict[str, Any]:
    error = {key.removeprefix("error_"): row[key] for key in _ERROR} if row["error_code"] else None
    kept = {key: row[key] for key in ("model", "version", "provider", "confident", "predictions")}
    return {"photo": os.fsdecode(row["path"]), **kept, "error": error}
