import pytest

from training.comparison import plot, table
from training.comparison.records import Candidate, Result, Row, best, candidates


def row(strategy="head", top1=0.9, trainable=10, became=None, keep=0, seconds=30.0):
    result = Result(
        became or strategy, keep, 100, top1, (top1 - 0.05, top1 + 0.05), seconds, trainable, 5_000_000, 9_000_000
    )
    return Row(Candidate("mobilenet_v2", strategy), "runs/x", result)


FAILED = Row(Candidate("vgg16", "head"), "runs/y", None, "no | weights")


def test_candidates_are_all_pairs_once():
    found = candidates(["mobilenet_v2", "vgg16"], ["head", "scratch", "head"])
    assert [candidate.name for candidate in found] == [
        "mobilenet_v2-head", "mobilenet_v2-scratch", "vgg16-head", "vgg16-scratch",
    ]  # fmt: skip


def test_the_best_is_the_most_accurate_and_then_the_smallest():
    small, large = row(trainable=1), row("finetune", trainable=100)
    assert best([FAILED, large, small, row("scratch", 0.5)]) is small
    assert best([FAILED]) is None


@pytest.mark.parametrize(
    ("asked", "became", "keep", "shown"),
    [("auto", "finetune", 0, "auto: finetune"), ("auto", "truncate", 7, "auto: truncate 7"),
     ("truncate", "truncate", 7, "truncate 7"), ("head", "head", 0, "head")],
)  # fmt: skip
def test_what_was_left_open_is_shown_as_it_became(asked, became, keep, shown):
    assert table.strategy(row(asked, became=became, keep=keep)) == shown
    assert table.strategy(FAILED) == "head"


def test_numbers_are_shown_in_units_that_a_person_reads():
    assert table.cells(row(trainable=3843, seconds=200)) == (
        "mobilenet_v2", "head", "0.900 (0.850–0.950)", "3.3 min", "3.8 k", "9.0 MB",
    )  # fmt: skip
    assert table.count(2_230_000) == "2.23 M"
    assert table.duration(59.6) == "60 s"


def test_the_page_says_who_failed_and_why():
    assert "- vgg16-head failed: no \\| weights\n" in table.markdown("colours", [row(), FAILED])


@pytest.mark.parametrize(
    ("top1", "ticks"), [(0.9, ["0.8", "0.9", "1.0"]), (0.1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"])]
)
def test_the_axis_begins_below_the_lowest_interval(top1, ticks):
    drawn = plot.svg([row(top1=top1), FAILED])
    assert [tick for tick in ("0.0", "0.1", "0.2", "0.4", "0.6", "0.8", "0.9", "1.0") if f">{tick}<" in drawn] == ticks
    assert drawn.count("<circle") == 1
