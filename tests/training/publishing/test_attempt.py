import os
import signal

import pytest

from training.config import Machine
from training.publishing import attempt, lock
from training.publishing.attempt import Attempt, ends_on_sigterm
from training.publishing.release import Release
from training.runs.records import TrainingRequest

PATIENCE_S = 120


@pytest.fixture
def wanted(photos, recipe, tmp_path):
    request = TrainingRequest(photos, "colours", "none", tmp_path / "runs")
    return Attempt(request, recipe(strategy="scratch", epochs=1), Machine("cpu", 0), Release(tmp_path / "models"))


def test_an_attempt_that_publishes_nothing_says_why_and_ends_with_1(wanted, tmp_path, capfd):
    """In a process of its own, as the watch starts it."""
    with lock.held(tmp_path / "runs" / "colours"):
        process = wanted.start()
        process.join(PATIENCE_S)
    assert process.exitcode == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"anther: 'colours' is being retrained by process {os.getpid()} on ")


def test_an_attempt_that_publishes_says_what_serves(wanted, finished, monkeypatch, capfd):
    monkeypatch.setattr(attempt, "retrain", lambda *arguments: (finished.run, finished.bundle))
    attempt.work(wanted)
    assert "published as version 1, which serves from now on" in capfd.readouterr().err


@pytest.fixture
def usual_sigint():
    """As a process of a terminal has it, whatever loops other tests ran in this one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("usual_sigint")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_attempt_in_an_orderly_way(wanted, monkeypatch, number, code):
    cleaned = []

    def working(*arguments):
        try:
            os.kill(os.getpid(), number)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(attempt, "retrain", working)
    with pytest.raises(SystemExit) as ended:
        attempt.work(wanted)
    assert (ended.value.code, cleaned) == (code, [True])


def test_a_second_sigterm_does_not_disturb_the_end_that_the_first_began():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(SystemExit), ends_on_sigterm():
        work()
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before
