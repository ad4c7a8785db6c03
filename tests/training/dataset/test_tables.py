import csv

import pyarrow as pa
import pytest
from pyarrow import parquet

from training.dataset.tables import USUAL, Columns, listed
from training.errors import TableUnusable


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    return tmp_path


@pytest.fixture(autouse=True)
def _usual_field_limit():
    """The csv module has one limit for the whole process, and others may have raised it."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


def text(folder, content, name="photos.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def columns(folder, **named):
    path = folder / "photos.parquet"
    parquet.write_table(pa.table(named), path)
    return path


def pairs(table, names=USUAL):
    return [tuple(file) for file in listed(table, names).files]


def test_paths_and_labels_are_trimmed_and_labels_sorted(folder):
    table = text(folder, "path,label\n a.jpg , red\nb.jpg,blue \n")
    assert pairs(table) == [("red", "a.jpg"), ("blue", "b.jpg")]
    assert listed(table, USUAL).labels == ("blue", "red")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpath,label\r\na.jpg,red\r\n",
        "label;size;path\nred;12;a.jpg\n",
        "path\tlabel\na.jpg\tred\n",
        '"path" , "label"\n"a.jpg","red"\n',
        "path,label,path_before\na.jpg,red,x\n",
    ],
    ids=["byte order mark", "semicolons", "tabs", "quotes", "more columns"],
)
def test_what_programs_call_csv_is_read(folder, content):
    assert pairs(text(folder, content)) == [("red", "a.jpg")]


def test_columns_can_be_named(folder):
    table = text(folder, "file,class\na.jpg,red\n")
    assert pairs(table, Columns("file", "class")) == [("red", "a.jpg")]
    with pytest.raises(
        TableUnusable, match=r"no column 'path' \(its columns are file, class\); name one with --path-c"
    ):
        listed(table, USUAL)
    with pytest.raises(TableUnusable, match=r"no column 'label'.*--label-column"):
        listed(table, Columns("file", "label"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "its columns are none"),
        ("path,label\n", "it has no rows"),
        ("path,label\na.jpg,red\na.jpg, \n", "line 3 has no label; give it a label, or remove it"),
        ("path,label\na.jpg\n", "line 2 has no label"),
        ("path,label\n,red\n", "line 2 has no path"),
        (b"path,label\na.jpg,\xff\n", "not text in UTF-8"),
        ("path,label\n" + "x" * 5_000 + ",red\n", "none of its 1 files exists"),
        ("path,label\n" + "x" * 200_000 + ",red\n", "field larger than field limit"),
        ("path,label\nb.jpg,red\nc.jpg,red\n", "none of its 2 files exists, the first is .*b.jpg; paths are"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_sentence(folder, content, reason):
    with pytest.raises(TableUnusable, match=reason):
        listed(text(folder, content), USUAL)


@pytest.mark.parametrize("name", ["gone.csv", "gone.parquet"])
def test_a_missing_table_is_a_sentence(folder, name):
    with pytest.raises(TableUnusable, match=r"cannot be read \(.*No such file.*\); give a table or a folder"):
        listed(folder / name, USUAL)


def test_parquet_is_read_in_batches(folder):
    table = columns(folder, path=["a.jpg"] * 10_000, label=["red", " blue "] * 5_000)
    assert len(pairs(table)) == 10_000
    assert listed(table, USUAL).labels == ("blue", "red")


def test_parquet_labels_may_be_numbers_or_categories(folder):
    assert pairs(columns(folder, path=["a.jpg"], label=[7])) == [("7", "a.jpg")]
    categories = pa.array(["red", "blue"]).dictionary_encode()
    assert pairs(columns(folder, path=["a.jpg", "b.jpg"], label=categories)) == [("red", "a.jpg"), ("blue", "b.jpg")]


def test_parquet_that_cannot_be_used_is_a_sentence(folder):
    with pytest.raises(TableUnusable, match="row 5000 has no label"):
        listed(columns(folder, path=["a.jpg"] * 5000, label=["red"] * 4999 + [None]), USUAL)
    with pytest.raises(TableUnusable, match="column 'label' holds double; write it as text"):
        listed(columns(folder, path=["a.jpg"], label=[0.5]), USUAL)
    with pytest.raises(TableUnusable, match="no column 'label'"):
        listed(columns(folder, path=["a.jpg"]), USUAL)
    with pytest.raises(TableUnusable, match=r"cannot be read .*write it again as Parquet"):
        listed(text(folder, "path,label\n", "photos.parquet"), USUAL)
