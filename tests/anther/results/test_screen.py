"""What `anther classify` prints: the exact JSON that programs read, and a table that people read."""

import dataclasses
import json
from pathlib import Path

import pytest
from rich.text import Text

from anther import CallFailed, Classification, Prediction
from anther.results.screen import Outcomes, Screen, Tally

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
def show(capsys):
    """`show("table", (path, outcome), …)` gives what is printed."""

    def call(kind, *outcomes) -> str:
        Screen(kind).show(iter(outcomes))
        return capsys.readouterr().out

    return call


def counted(*outcomes) -> Tally:
    tally = Tally()
    assert list(tally.counted(iter(outcomes))) == list(outcomes)
    return tally


# JSON


def test_an_answer_is_one_line_of_json(show) -> None:
    assert show("json", (Path("a/b.jpg"), GOOD)) == (
        '{"photo": "a/b.jpg", "model": "flowers", "version": 3, "provider": "CPUExecutionProvider", "confident": true, '
        '"predictions": [{"label": "daisy", "index": 0, "probability": 0.75}, '
        '{"label": "tulips", "index": 4, "probability": 0.25}], "error": null}\n'
    )


def test_a_failure_has_the_same_keys(show) -> None:
    assert show("json", (Path("b.jpg"), BAD)) == (
        '{"photo": "b.jpg", "model": null, "version": null, "provider": null, "confident": null, "predictions": [], '
        '"error": {"code": "INVALID_ARGUMENT", "reason": "IMAGE_UNDECODABLE", '
        '"message": "the JPEG data cannot be decoded"}}\n'
    )


def test_every_photo_has_its_line_as_it_comes(show) -> None:
    lines = show("json", (Path("3"), BAD), (Path("1"), GOOD), (Path("2"), BAD)).splitlines()
    assert [json.loads(line)["photo"] for line in lines] == ["3", "1", "2"]


def test_any_file_name_survives_json(show) -> None:
    """Names that are no UTF-8, from old archives, come back as the name that opens the file."""
    names = [ODD_NAME, Path('new\nline "quoted".jpg'), Path("花.jpg")]
    out = show("json", *((name, GOOD) for name in names))
    assert out.isascii()
    assert [Path(json.loads(line)["photo"]) for line in out.splitlines()] == names


# The table


def test_a_table_has_a_row_a_photo(show) -> None:
    lines = show("table", (Path("a.jpg"), GOOD), (Path("b.jpg"), UNSURE)).splitlines()
    assert lines[0].split() == ["photo", "class", "probability", "next"]
    assert lines[1].split() == ["a.jpg", "daisy", "0.750", "tulips", "0.250"]
    assert lines[2].split() == ["b.jpg", "daisy", "(unsure)", "0.500"]
    assert lines[3:] == [""]


def test_an_unsure_answer_names_the_threshold_which_is_asked_for_once(capsys) -> None:
    asked = []

    def threshold_of(model: str, version: int) -> float | None:
        asked.append((model, version))
        return 0.7 if version == 3 else None

    gone = dataclasses.replace(UNSURE, version=4)
    Screen("table", threshold_of).show(iter((Path(f"{n}.jpg"), answer) for n, answer in enumerate([UNSURE, gone] * 60)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0.jpg", "daisy", "(unsure)", "0.500", "<", "0.700"]
    assert asked == [("flowers", 3), ("flowers", 4)]
    assert lines[-2:] == ["(unsure): under the threshold of flowers/3, 0.700", ""]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_terminals_line_ends_between_predictions(monkeypatch, capsys, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    others = tuple(Prediction(f"dandelion {n}", n, 0.1) for n in range(4))
    answer = dataclasses.replace(UNSURE, predictions=(Prediction("sunflowers" * 4, 4, 0.6), *others))
    Screen("table", lambda *_: 0.84).show(iter([(Path("photos/of/flowers" * 5), answer), (Path("a.jpg"), GOOD)]))
    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert all(rest.startswith(f" {n} 0.100") for n, rest in enumerate(text.split("dandelion")[1:]))
    assert "0.600 < 0.840" in text
    assert "…" not in text


@pytest.mark.parametrize("predictions", [GOOD.predictions, GOOD.predictions[:1]])
def test_a_pipe_gets_no_blanks_at_the_ends_of_lines(show, predictions) -> None:
    answer = dataclasses.replace(GOOD, predictions=predictions)
    lines = show("table", (Path("a.jpg"), answer), (Path("photo" * 20), GOOD)).splitlines()
    assert all(line == line.rstrip() for line in lines)


def test_rows_are_in_the_order_of_names_though_answers_are_not(show) -> None:
    lines = show("table", *((Path(name), GOOD) for name in ("c", "a", "b"))).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["a", "b", "c"]


def test_failures_stand_below_the_rows_with_their_reason(show) -> None:
    assert show("table", (Path("b.jpg"), BAD), (Path("a.jpg"), GOOD)).splitlines()[2:] == [
        "IMAGE_UNDECODABLE b.jpg: the JPEG data cannot be decoded",
        "",
    ]


def test_without_an_answer_there_is_no_table(show) -> None:
    assert show("table", (Path("b.jpg"), BAD)) == "IMAGE_UNDECODABLE b.jpg: the JPEG data cannot be decoded\n"


def test_a_long_failure_stays_on_its_line(show) -> None:
    long = CallFailed("NOT_FOUND", "MODEL_NOT_FOUND", "no model " + "x " * 200)
    assert len(show("table", (Path("folder/" * 30 + "b.jpg"), long)).splitlines()) == 1


@pytest.mark.parametrize("text", ["[red]", "[/]", "rose [wild]", "a\\", "[link=x]"])
def test_brackets_in_labels_and_names_are_shown_as_they_are(show, text: str) -> None:
    answer = Classification("flowers", 1, "cpu", True, (Prediction(text, 0, 0.75), Prediction(text, 1, 0.25)), {})
    failure = CallFailed("INTERNAL", "INTERNAL", text)
    _, row, failed, _ = show("table", (Path(f"{text}.jpg"), answer), (Path(f"{text}.png"), failure)).splitlines()
    assert row.count(text) == 3
    assert failed == f"INTERNAL {text}.png: {text}"


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_goes(show) -> None:
    assert show("table", (ODD_NAME, GOOD), (ODD_NAME, BAD)).count("caf\ufffd.jpg") == 2


def test_a_long_table_is_printed_part_by_part_in_columns_that_stay(capsys) -> None:
    """However many answers there are, only the rows of a part are waited for, and the header comes once."""
    seen: list[int] = []

    def outcomes() -> Outcomes:
        for number in range(130):
            seen.append(len(capsys.readouterr().out.splitlines()))
            yield Path(f"{'long' * 10}{number}.jpg" if number < 50 else f"{number}.jpg"), GOOD

    Screen("table").show(outcomes())
    rest = capsys.readouterr().out.splitlines()
    assert (seen[49], seen[50], seen[100]) == (0, 51, 50)
    assert len(rest) == 31
    assert rest[0].index("daisy") == len("long" * 10 + "10.jpg") + 2
    assert not any("probability" in line for line in rest)


def test_long_names_are_folded_in_a_narrow_terminal(monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    Screen("table").show(iter([(Path("q" * 100), GOOD)]))
    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert "daisy" in lines[1]
    assert sum(line.count("q") for line in lines) == 100


# Where a file has the answers


def test_what_a_file_holds_is_not_shown(show) -> None:
    drawn = []

    def outcomes() -> Outcomes:
        drawn.append(1)
        yield Path("a"), GOOD

    assert show("nothing", *outcomes()) == ""
    assert drawn == [1]


# What it came to


def test_answers_are_counted_with_who_gave_them() -> None:
    assert str(counted((Path("a"), GOOD), (Path("b"), UNSURE))) == (
        "2 of 2 answered by flowers/3 on CPUExecutionProvider"
    )
    assert str(counted()) == "0 of 0 answered"


def test_failures_are_counted_by_reason_the_most_common_first() -> None:
    full = CallFailed("RESOURCE_EXHAUSTED", "QUEUE_FULL", "x")
    tally = counted((Path("a"), full), (Path("b"), BAD), *((Path("c"), BAD) for _ in range(1000)), (Path("d"), GOOD))
    assert tally.failed == 1002
    assert str(tally) == (
        "1 of 1,003 answered by flowers/3 on CPUExecutionProvider; IMAGE_UNDECODABLE 1,001, QUEUE_FULL 1"
    )


# The progress bar


@pytest.mark.parametrize(("kind", "hidden"), [("table", False), ("json", True), ("nothing", False)])
def test_in_a_terminal_a_bar_is_shown_but_not_between_lines_of_json(monkeypatch, kind, hidden: bool) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert Screen(kind).progress().disable is hidden


@pytest.mark.parametrize("kind", ["table", "json", "nothing"])
def test_where_nobody_looks_there_is_no_bar(monkeypatch, kind) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert Screen(kind).progress().disable
