import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import RetrainRunning
from training.publishing import lock

HOLD = """
import sys
from pathlib import Path
from training.publishing import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path / "flowers"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "flowers")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_retrain_is_refused_and_told_who_is_at_it(holder, tmp_path):
    expected = rf"'flowers' is being retrained by process {holder.pid} on \S+ since 20\S+; wait until it has ended"
    with pytest.raises(RetrainRunning, match=expected), lock.held(tmp_path / "flowers"):
        pytest.fail("two held it at once")
    with lock.held(tmp_path / "tulips"):
        """Another model's is free."""


def test_a_killed_holder_leaves_the_lock_free(holder, tmp_path):
    """SIGKILL: nothing of the holder runs any more, and its file still names it."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert str(holder.pid) in (tmp_path / "flowers" / lock.FILE).read_text()
    with lock.held(tmp_path / "flowers"):
        assert str(os.getpid()) in (tmp_path / "flowers" / lock.FILE).read_text()


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path / "flowers"):
        _ = 1 / 0
    with lock.held(tmp_path / "flowers"):
        assert (tmp_path / "flowers" / lock.FILE).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}'])
def test_a_holder_that_has_not_signed_yet_holds_it_all_the_same(holder, tmp_path, text):
    (tmp_path / "flowers" / lock.FILE).write_text(text)
    with pytest.raises(RetrainRunning, match="by another process, just now"), lock.held(tmp_path / "flowers"):
        pytest.fail("two held it at once")
