"""What a process holds is read as the system tells it."""

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.vitals import read_vitals

# It holds nothing but what it is told to: in a process of tests threads of earlier ones may be about to end.
OTHER = """
import sys, threading
print("up", flush=True)
sys.stdin.readline()
threading.Thread(target=threading.Event().wait, daemon=True).start()
file = open(sys.executable, "rb")
print("more", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other() -> Iterator["subprocess.Popen[str]"]:
    """A process that takes another thread and another file when it is written a line."""
    command = [sys.executable, "-c", OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_process_is_seen_as_others_see_it(other) -> None:
    found, seen = read_vitals(other.pid), psutil.Process(other.pid)
    assert found.memory == pytest.approx(seen.memory_info().rss, rel=0.1)
    assert found.threads == seen.num_threads()
    assert found.descriptors == seen.num_fds()
    assert found.cpu_s == pytest.approx(sum(seen.cpu_times()[:2]), abs=1)


def test_another_thread_and_another_file_count(other) -> None:
    before = read_vitals(other.pid)
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.stdout.readline() == "more\n"
    after = read_vitals(other.pid)
    assert (after.threads, after.descriptors) == (before.threads + 1, before.descriptors + 1)


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        read_vitals(2**22 + 1)  # beyond the highest number that a process can have
