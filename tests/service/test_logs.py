"""One line a record on standard error, for people or for machines."""

import json
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest

from service import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's own; the test run's must come back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines(capsys):
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_text_is_one_line_with_time_level_and_source(capsys) -> None:
    logs.configure("text")
    logging.getLogger("service.app").info("serving %s", "flowers")
    line = capsys.readouterr().err
    assert line.endswith(" INFO    service.app: serving flowers\n")
    datetime.strptime(line[:8], "%H:%M:%S")


def test_json_is_one_object_a_line(lines) -> None:
    logs.configure("json")
    logging.getLogger("service.app").warning("two\nlines and 花 of %d", 3)
    (record,) = lines()
    time = datetime.fromisoformat(record.pop("time"))
    assert time.utcoffset().total_seconds() == 0
    assert record == {"level": "warning", "logger": "service.app", "message": "two\nlines and 花 of 3"}


def test_a_trace_stays_within_its_line(lines) -> None:
    logs.configure("json")
    try:
        raise ValueError("broken\nand long")
    except ValueError:
        logging.getLogger("service").exception("a call failed")
    (record,) = lines()
    assert record["message"] == "a call failed"
    assert "Traceback" in record["trace"]
    assert "ValueError: broken" in record["trace"]


def test_details_below_info_are_left_out(lines) -> None:
    logs.configure("json")
    logging.getLogger("PIL.PngImagePlugin").debug("STREAM b'IHDR' 16 13")
    assert lines() == []


def test_configuring_again_does_not_double_the_lines(lines) -> None:
    logs.configure("text")
    logs.configure("json")
    logging.getLogger().info("once")
    assert len(lines()) == 1


def test_warnings_of_libraries_are_records_too(lines) -> None:
    """Plain text between the lines would break who reads them."""
    logs.configure("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # the test run catches warnings itself
        warnings.warn("an old setting", stacklevel=1)
    (record,) = lines()
    assert record["logger"] == "py.warnings"
    assert "an old setting" in record["message"]


def test_what_clients_do_is_not_logged_by_libraries(lines) -> None:
    """Pillow has an opinion on every damaged picture, and gRPC on every client that leaves early."""
    logs.configure("json")
    with warnings.catch_warnings():
        logging.captureWarnings(False)
        logging.captureWarnings(True)  # the test run catches warnings itself
        warnings.warn_explicit("Tag data larger than file", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
    logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
    logging.getLogger("python_multipart.multipart").warning("Did not find boundary character %r at index %d", b"n", 0)
    grpc = logging.getLogger("grpc._cython.cygrpc")
    grpc.error("ExecuteBatchError raised in core by servicer method [%s]", "/x")
    grpc.error("Unexpected [%s] raised by servicer method", "KeyError")
    (record,) = lines()
    assert record["message"] == "Unexpected [KeyError] raised by servicer method"
