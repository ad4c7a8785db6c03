"""Results as lines and rows: whatever a photo is called and however it went, it comes back; what is torn does not."""

import csv
import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anther.client.answers import Classification, Prediction
from anther.client.call_failed import CallFailed
from anther.results.formats import COLUMNS, Csv, JsonLines, Recorded
from anther.results.record import Outcome

GOOD = Classification(
    "flowers", 3, "CPUExecutionProvider", True, (Prediction("daisy", 0, 0.75), Prediction("tulips", 4, 0.25)), {}
)
BAD = CallFailed("INVALID_ARGUMENT", "IMAGE_UNDECODABLE", 'the "JPEG" data, it seems,\ncannot be decoded')
FORMS = [JsonLines(), Csv()]

NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name).map(os.fsdecode)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
PREDICTIONS = st.builds(Prediction, TEXTS, st.integers(0, 999), st.floats(0, 1, width=32))
OUTCOMES = st.builds(
    Classification, TEXTS, st.integers(1, 10**9), TEXTS, st.booleans(),
    st.lists(PREDICTIONS, min_size=1, max_size=5).map(tuple), st.just({}),
) | st.builds(CallFailed, TEXTS, TEXTS, TEXTS)  # fmt: skip


def recorded(photo: str, outcome: Outcome) -> Recorded:
    failed = isinstance(outcome, CallFailed)
    return Recorded(photo, None if failed else (outcome.model, outcome.version))


@pytest.mark.parametrize("form", FORMS, ids=["jsonl", "csv"])
@given(results=st.lists(st.tuples(NAMES, OUTCOMES), max_size=6), data=st.data())
def test_a_file_gives_its_results_back_and_not_the_torn_one(form, results, data) -> None:
    encoded = [form.encode(*result) for result in results]
    whole = b"".join(encoded)
    cut = data.draw(st.integers(0, len(whole)))
    parts = list(form.split(io.BytesIO(whole[:cut])))
    assert b"".join(part for part, _ in parts) == whole[:cut]
    complete = [part for part, is_whole in parts if is_whole]
    count = sum(sum(map(len, encoded[: end + 1])) <= cut for end in range(len(encoded)))
    assert complete == encoded[:count]
    assert [form.decode(part) for part in complete] == [recorded(*result) for result in results[:count]]
    assert all(part.startswith(form.prefix) for part in complete)


@given(photo=NAMES, outcome=OUTCOMES)
def test_csv_is_read_by_any_reader(photo: str, outcome: Outcome) -> None:
    text = (Csv.header + Csv().encode(photo, outcome)).decode(errors="surrogateescape")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert tuple(row) == COLUMNS
    assert os.fsencode(row["photo"]) == os.fsencode(photo)
    if isinstance(outcome, CallFailed):
        assert (row["error_code"], row["error_message"]) == (outcome.code, outcome.message)
        assert (row["predictions"], row["confident"], row["model"]) == ("", "", "")
    else:
        best = outcome.predictions[0]
        assert (row["label"], int(row["index"]), float(row["probability"])) == (
            best.label,
            best.index,
            best.probability,
        )
        assert len(json.loads(row["predictions"])) == len(outcome.predictions)
        assert (row["confident"], row["error_code"]) == (str(outcome.confident).lower(), "")


def test_the_columns_of_csv_stay_as_they_are() -> None:
    """Programs read them by name and by place."""
    assert Csv.header == (
        b"photo,model,version,provider,confident,label,index,probability,predictions,"
        b"error_code,error_reason,error_message\n"
    )
    assert Csv().encode("a,b.jpg", GOOD) == (
        b'"a,b.jpg",flowers,3,CPUExecutionProvider,true,daisy,0,0.75,'
        b'"[{""label"": ""daisy"", ""index"": 0, ""probability"": 0.75}, '
        b'{""label"": ""tulips"", ""index"": 4, ""probability"": 0.25}]",,,\n'
    )


def test_a_name_that_is_no_utf8_is_in_csv_byte_for_byte() -> None:
    assert Csv().encode(os.fsdecode(b"caf\xe9.jpg"), BAD).startswith(b"caf\xe9.jpg,")


def test_an_answer_of_many_classes_fits_into_a_cell() -> None:
    predictions = tuple(Prediction(f"class {number}", number, 0.0) for number in range(5000))
    many = Classification("flowers", 1, "cpu", True, predictions, {})
    assert Csv().decode(Csv().encode("a.jpg", many)) == Recorded("a.jpg", ("flowers", 1))


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n", b"[]\n", b"{}\n", b"1\n", b'{"photo": "a.jpg"}\n', b"\xff\xfe\n", b"\n",
        JsonLines().encode("1", BAD).replace(b'"1"', b"1", 1),
    ],
)  # fmt: skip
def test_another_line_is_no_result(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reason is whatever was found
        JsonLines().decode(line)


@pytest.mark.parametrize("row", [b"a,b\n", b"\n", b'"a"b,,,,,,,,,,,\n', b"a,m,x,,,,,,,,,\n", b"a,m,,,,,,,,,,\n"])
def test_another_row_is_no_result(row: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reason is whatever was found
        Csv().decode(row)
