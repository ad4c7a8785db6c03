import pytest

from training.progress import Silent, Terminal, timed


def test_without_a_terminal_there_are_lines_and_no_bars(capsys):
    reporter = Terminal()
    assert list(reporter.track(range(3), "Counting", 3)) == [0, 1, 2]
    reporter.say("[done] in 3 steps")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "[done] in 3 steps\n"


def test_silence_passes_everything_through(capsys):
    reporter = Silent()
    assert list(reporter.track(range(3), "Counting", 3)) == [0, 1, 2]
    reporter.say("nothing")
    assert capsys.readouterr().err == ""


def test_times_add_up_even_when_the_work_fails():
    seconds = {"train": 1.0}
    with pytest.raises(ValueError, match="out of memory"), timed(seconds, "train"):
        raise ValueError("out of memory")
    assert seconds["train"] > 1.0
