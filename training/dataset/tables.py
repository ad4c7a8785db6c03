"""A table of path and label, as CSV, TSV or Parquet, read row by row."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.dataset.listing import Listed, Listing
from training.errors import TableUnusable

_DELIMITERS = (",", ";", "\t")  # the second is what office programs write where the comma is the decimal point
_ROWS_A_BATCH = 4096


@dataclass(frozen=True)
class Columns:
    path: str = "path"
    label: str = "label"


USUAL = Columns()


def listed(table: Path, columns: Columns) -> Listing:
    """Every row's file and label, both trimmed; relative paths begin at the table's folder.

    Raises `TableUnusable`.
    """
    rows = _parquet if table.suffix.lower() == ".parquet" else _text
    files = [_checked(table, place, path, label) for place, path, label in rows(table, columns)]
    if not files:
        raise TableUnusable(table, "it has no rows", "give each photo a row of path and label")
    _require_one_that_exists(table, files)
    return Listing(table, table.parent, tuple(sorted({file.label for file in files})), files)


def _checked(table: Path, place: str, path: Any, label: Any) -> Listed:
    texts = {"path": _trimmed(path), "label": _trimmed(label)}
    for what, text in texts.items():
        if not text:
            raise TableUnusable(table, f"{place} has no {what}", f"give it a {what}, or remove it")
    return Listed(texts["label"], texts["path"])


def _trimmed(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _require_one_that_exists(table: Path, files: Sequence[Listed]) -> None:
    """Report a wrong root at once. The scan reports single missing files."""
    if not any(_exists(table.parent / file.path) for file in files):
        found = f"none of its {len(files)} files exists, the first is {table.parent / files[0].path}"
        raise TableUnusable(table, found, "paths are absolute, or relative to the table's folder")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False


def _text(table: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Raises `TableUnusable` on what is not text in columns."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            delimiter = _delimiter(file.readline(), columns)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
            _require_columns(table, [name.strip() for name in reader.fieldnames or ()], columns)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            for row in reader:
                yield f"line {reader.line_num}", row[columns.path], row[columns.label]
    except UnicodeDecodeError as exc:
        raise TableUnusable(table, "it is not text in UTF-8", "save it as CSV in UTF-8") from exc
    except csv.Error as exc:
        raise TableUnusable(table, f"it cannot be read ({exc})", "save it again as CSV") from exc
    except OSError as exc:
        raise _unreadable(table, exc) from exc


def _delimiter(header: str, columns: Columns) -> str:
    """The delimiter that splits the header into the requested columns."""
    for delimiter in _DELIMITERS:
        names = {name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True), [])}
        if {columns.path, columns.label} <= names:
            return delimiter
    return ","


def _parquet(table: Path, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Raises `TableUnusable` on what is not Parquet, and `ModuleNotFoundError` without pyarrow."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(table) as file:
            _require_columns(table, file.schema_arrow.names, columns)
            for name in (columns.path, columns.label):
                _require_readable(table, name, file.schema_arrow.field(name).type)
            number = 0
            for batch in file.iter_batches(_ROWS_A_BATCH, columns=[columns.path, columns.label]):
                for path, label in _pairs(batch, columns):
                    number += 1
                    yield f"row {number}", path, label
    except pa.ArrowException as exc:
        raise TableUnusable(table, f"it cannot be read ({_first_line(exc)})", "write it again as Parquet") from exc
    except OSError as exc:
        raise _unreadable(table, exc) from exc


def _pairs(batch: Any, columns: Columns) -> Iterable[tuple[Any, Any]]:
    return zip(batch.column(columns.path).to_pylist(), batch.column(columns.label).to_pylist(), strict=True)


def _require_columns(table: Path, found: Sequence[str], columns: Columns) -> None:
    for option, name in (("--path-column", columns.path), ("--label-column", columns.label)):
        if name not in found:
            has = ", ".join(found) or "none"
            raise TableUnusable(table, f"it has no column '{name}' (its columns are {has})", f"name one with {option}")


def _require_readable(table: Path, name: str, kind: Any) -> None:
    """Require text or whole numbers, plain or dictionary-encoded: other types have no obvious label name."""
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(plain) or types.is_large_string(plain) or types.is_integer(plain)):
        raise TableUnusable(table, f"its column '{name}' holds {kind}", "write it as text")


def _unreadable(table: Path, exc: OSError) -> TableUnusable:
    return TableUnusable(table, f"it cannot be read ({exc.strerror or _first_line(exc)})", "give a table or a folder")


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200]
