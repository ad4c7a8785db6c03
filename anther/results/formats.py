"""A photo's result in a file that grows: a line of JSON or a row of CSV; and back, as far as it takes to go on."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from anther.client.call_failed import CallFailed
from anther.results.record import Outcome, json_line, record

COLUMNS = (
    "photo", "model", "version", "provider", "confident", "label", "index", "probability", "predictions",
    "error_code", "error_reason", "error_message",
)  # fmt: skip
"""Of CSV: `label` to `probability` are the most probable class, `predictions` all that were asked for, as JSON."""

_KEYS = record("", CallFailed("", "", "")).keys()


@dataclass(frozen=True, slots=True)
class Recorded:
    """`made_by` is the model and version of an answer, None where the photo failed."""

    photo: str
    made_by: tuple[str, int] | None


class Format(Protocol):
    header: bytes
    """What a file begins with."""
    prefix: bytes
    """What every record begins with."""

    def encode(self, photo: str, outcome: Outcome) -> bytes:
        """One record, ended by a line's end."""
        ...

    def split(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
        """Lines to records, and whether each is whole: the last one may be torn."""
        ...

    def decode(self, data: bytes) -> Recorded:
        """Raises `ValueError` where it is no record."""
        ...


class JsonLines:
    header, prefix = b"", b'{"photo": "'

    def encode(self, photo: str, outcome: Outcome) -> bytes:
        return f"{json_line(photo, outcome)}\n".encode("ascii")

    def split(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
        return ((line, line.endswith(b"\n")) for line in lines)

    def decode(self, data: bytes) -> Recorded:
        found = json.loads(data)
        if not isinstance(found, dict) or found.keys() != _KEYS or not isinstance(found["photo"], str):
            raise ValueError(f"other keys than {', '.join(_KEYS)}")
        return Recorded(found["photo"], None if found["error"] else (found["model"], int(found["version"])))


class Csv:
    """UTF-8; names that are not UTF-8 are written byte for byte as the file system has them."""

    header, prefix = f"{','.join(COLUMNS)}\n".encode(), b""

    def encode(self, photo: str, outcome: Outcome) -> bytes:
        found = record(photo, outcome)
        best = found["predictions"][0] if found["predictions"] else {}
        error = {f"error_{key}": value for key, value in (found["error"] or {}).items()}
        row = {**found, **best, **error}
        for column in ("confident", "predictions"):
            row[column] = "" if error else json.dumps(found[column])
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerow(row.get(column) for column in COLUMNS)  # quotes \r and \n
        return text.getvalue().removesuffix("\r\n").encode(errors="surrogateescape") + b"\n"

    def split(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
        """A name may hold a line's end: the record goes on while a quotation mark is open."""
        begun: list[bytes] = []
        quoted = False
        for line in lines:
            begun.append(line)
            quoted ^= line.count(b'"') % 2 == 1
            if not quoted:
                yield b"".join(begun), line.endswith(b"\n")
                begun.clear()
        if begun:
            yield b"".join(begun), False

    def decode(self, data: bytes) -> Recorded:
        csv.field_size_limit(2**31 - 1)  # of predictions there may be a million
        try:
            rows = list(csv.reader(io.StringIO(data.decode(errors="surrogateescape"), newline=""), strict=True))
        except csv.Error as exc:
            raise ValueError(str(exc)) from exc
        if len(rows) != 1 or len(rows[0]) != len(COLUMNS):
            raise ValueError(f"other columns than {','.join(COLUMNS)}")
        row = dict(zip(COLUMNS, rows[0], strict=True))
        return Recorded(row["photo"], None if row["error_code"] else (row["model"], int(row["version"])))
