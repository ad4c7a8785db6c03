import io

import pytest
from rich.console import Console
from rich.text import Text

from anther.tables import write_rows, write_table

HEADINGS = ("class", "photos", "remark")
ROWS = [("daisy", "1,204", "whole"), ("roses", "7", Text("damaged", "red"))]


@pytest.fixture
def screen():
    """Lines as a terminal of a width would show them; none is cut, so a line that is too long stays too long."""

    def draw(width, write, *arguments, **options):
        console = Console(width=width, file=io.StringIO(), highlight=False)
        write(*arguments, to=console, **options)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    return draw


def test_a_table_that_fits_has_a_line_for_each_row_and_numbers_on_the_right(screen):
    assert screen(22, write_table, HEADINGS, ROWS, numbers=("photos",)) == [
        "class  photos  remark",
        "daisy   1,204  whole",
        "roses       7  damaged",
    ]


def test_a_table_that_does_not_fit_goes_row_by_row_and_loses_nothing(screen):
    assert screen(21, write_table, HEADINGS, ROWS) == [
        "daisy",
        "  photos  1,204",
        "  remark  whole",
        "roses",
        "  photos  7",
        "  remark  damaged",
    ]


def test_empty_cells_are_left_out_where_rows_are_blocks(screen):
    assert screen(10, write_table, HEADINGS, [("daisy", "", "a long remark")])[:2] == [
        "daisy",
        "  remark  a long remark",
    ]


def test_brackets_in_a_cell_are_no_markup(screen):
    assert screen(40, write_table, ("photo",), [("[red]a[/red].jpg",)])[1] == "[red]a[/red].jpg"
    assert screen(40, write_rows, [("photo", "[red]a[/red].jpg")]) == ["photo  [red]a[/red].jpg"]


def test_long_values_go_on_below_themselves_in_whole_words(screen):
    assert screen(
        34, write_rows, [("run", "flowers"), ("why", "few photos, and a probe finds them like photographs")]
    ) == [
        "run  flowers",
        "why  few photos, and a probe finds",
        "     them like photographs",
    ]


def test_neither_a_path_nor_a_command_is_broken(screen):
    path = "/data/a-very-long-folder/of-photos/runs/flowers"
    assert screen(30, write_rows, [("run", path)]) == [f"run  {path}"]
    command = f"anther export {path}"
    assert screen(30, write_rows, [("next", command)], whole=("next",)) == [f"next  {command}"]


def test_a_pipe_has_no_width_that_lines_must_fit_in(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    write_table(("photo", "remark"), [("a" * 100, "b" * 100)])
    write_rows([("why", "word " * 60)])
    said = capsys.readouterr().out.splitlines()
    assert [line.split() for line in said[:2]] == [["photo", "remark"], ["a" * 100, "b" * 100]]
    assert len(said) == 3
