"""What `anther classify` prints: the exact JSON that programs read, and a table that people read."""

import json
from pathlib import Path

import pytest

from service.client import CallFailed, Classification, Prediction
from service.results import write_json, write_table

GOOD = Classification(
    "flowers",
    3,
    "CPUExecutionProvider",
    True,
    (Prediction("daisy", 0, 0.75), Prediction("tulips", 4, 0.25)),
    {"queue": 0.0},
)
UNSURE = Classification("flowers", 3, "CPUExecutionProvider", False, (Prediction("daisy", 0, 0.5),), {})
BAD = CallFailed("INVALID_ARGUMENT", "IMAGE_UNDECODABLE", "the JPEG data cannot be decoded", None)
ODD_NAME = Path(b"caf\xe9.jpg".decode(errors="surrogateescape"))


@pytest.fixture
def printed(capsys):
    return lambda: capsys.readouterr().out


# JSON


def test_an_answer_is_one_line_of_json(printed) -> None:
    assert write_json([(Path("a/b.jpg"), GOOD)]) == 0
    assert printed() == (
        '{"photo": "a/b.jpg", "model": "flowers", "version": 3, "provider": "CPUExecutionProvider", "confident": true, '
        '"predictions": [{"label": "daisy", "index": 0, "probability": 0.75}, '
        '{"label": "tulips", "index": 4, "probability": 0.25}], "error": null}\n'
    )


def test_a_failure_has_the_same_keys(printed) -> None:
    assert write_json([(Path("b.jpg"), BAD)]) == 1
    assert printed() == (
        '{"photo": "b.jpg", "model": null, "version": null, "provider": null, "confident": null, "predictions": [], '
        '"error": {"code": "INVALID_ARGUMENT", "reason": "IMAGE_UNDECODABLE", '
        '"message": "the JPEG data cannot be decoded"}}\n'
    )


def test_every_photo_has_its_line_in_order(printed) -> None:
    assert write_json([(Path("1"), BAD), (Path("2"), GOOD), (Path("3"), BAD)]) == 2
    assert [json.loads(line)["photo"] for line in printed().splitlines()] == ["1", "2", "3"]


def test_any_file_name_survives_json(printed) -> None:
    """Names that are no UTF-8, from old archives, come back as the name that opens the file."""
    names = [ODD_NAME, Path('new\nline "quoted".jpg'), Path("花.jpg")]
    assert write_json([(name, GOOD) for name in names]) == 0
    out = printed()
    assert out.isascii()
    assert [Path(json.loads(line)["photo"]) for line in out.splitlines()] == names


# The table


def test_a_table_has_a_row_a_photo(printed) -> None:
    assert write_table([(Path("a.jpg"), GOOD), (Path("b.jpg"), UNSURE)], 2) == 0
    lines = printed().splitlines()
    assert lines[0].split() == ["photo", "class", "probability", "then"]
    assert lines[1].split() == ["a.jpg", "daisy", "0.750", "tulips", "0.250"]
    assert lines[2].split() == ["b.jpg", "daisy", "(unsure)", "0.500"]
    assert lines[-1] == "2 of 2 answered by flowers/3 on CPUExecutionProvider"


def test_failures_stand_below_the_table_with_their_reason(printed) -> None:
    assert write_table([(Path("a.jpg"), GOOD), (Path("b.jpg"), BAD)], 2) == 1
    *_, failure, summary = printed().splitlines()
    assert failure == "IMAGE_UNDECODABLE b.jpg: the JPEG data cannot be decoded"
    assert summary.startswith("1 of 2 answered by flowers/3")


def test_without_an_answer_there_is_no_table(printed) -> None:
    assert write_table([(Path("b.jpg"), BAD)], 1) == 1
    assert printed().splitlines() == [
        "IMAGE_UNDECODABLE b.jpg: the JPEG data cannot be decoded",
        "0 of 1 answered",
    ]


def test_a_long_failure_stays_on_its_line(printed) -> None:
    long = CallFailed("NOT_FOUND", "MODEL_NOT_FOUND", "no model " + "x " * 200)
    write_table([(Path("folder/" * 30 + "b.jpg"), long)], 1)
    assert len(printed().splitlines()) == 2


@pytest.mark.parametrize("text", ["[red]", "[/]", "rose [wild]", "a\\", "[link=x]"])
def test_brackets_in_labels_and_names_are_shown_as_they_are(printed, text: str) -> None:
    answer = Classification("flowers", 1, "cpu", True, (Prediction(text, 0, 0.75), Prediction(text, 1, 0.25)), {})
    failure = CallFailed("INTERNAL", "INTERNAL", text)
    assert write_table([(Path(f"{text}.jpg"), answer), (Path(f"{text}.png"), failure)], 2) == 1
    _, row, *_, failed, _ = printed().splitlines()
    assert row.count(text) == 3
    assert failed == f"INTERNAL {text}.png: {text}"


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_goes(printed) -> None:
    assert write_table([(ODD_NAME, GOOD), (ODD_NAME, BAD)], 2) == 1
    assert printed().count("caf\ufffd.jpg") == 2


def test_the_table_takes_no_answer_before_it_is_there(printed) -> None:
    """Answers are drawn one after the other, so that a folder of any size fits."""
    drawn = []

    def outcomes():
        for number in range(3):
            drawn.append(number)
            yield Path(str(number)), GOOD

    lines = write_json(outcomes())
    assert (lines, drawn) == (0, [0, 1, 2])
    assert len(printed().splitlines()) == 3
