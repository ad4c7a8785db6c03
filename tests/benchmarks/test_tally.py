"""Every end of a call is counted; what is wrong or unexpected stands out."""

from collections import Counter

from benchmarks.tally import Outcome, Tally, quantile

OK = frozenset({"OK"})


def test_ends_are_counted_by_kind_and_code() -> None:
    tally = Tally()
    tally.add("classify", OK, [Outcome("OK")], 0.5)
    tally.add("stream", OK, [Outcome("OK"), Outcome("OK")], 2.0)
    tally.add("bad", frozenset({"INVALID_ARGUMENT"}), [Outcome("INVALID_ARGUMENT")], 9.0)
    assert tally.counts == {"classify": {"OK": 1}, "stream": {"OK": 2}, "bad": {"INVALID_ARGUMENT": 1}}
    assert tally.seconds == {"classify": [0.5], "stream": [2.0]}
    assert (tally.wrong, tally.unexpected, tally.examples) == (Counter(), Counter(), [])


def test_wrong_answers_and_unexpected_ends_are_named() -> None:
    tally = Tally()
    tally.add("classify", OK, [Outcome("OK", "roses and not daisy")], 0.5)
    tally.add("classify", OK, [Outcome("INTERNAL")], 0.5)
    assert tally.wrong == {"classify": 1}
    assert tally.unexpected == {"classify: INTERNAL": 1}
    assert tally.examples == ["classify: OK roses and not daisy", "classify: INTERNAL"]


def test_a_flood_of_errors_leaves_a_few_examples() -> None:
    tally = Tally()
    tally.add("classify", OK, [Outcome("INTERNAL")] * 1000, 0.5)
    assert tally.unexpected == {"classify: INTERNAL": 1000}
    assert len(tally.examples) == 5


def test_quantiles() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0), quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1)) == (
        1,
        51,
        100,
        100,
    )
    assert quantile([], 0.5) == 0
