"""What a process holds is read as the system tells it."""

import os
import threading

import psutil
import pytest

from benchmarks.vitals import read_vitals


def test_this_process_is_seen_as_others_see_it() -> None:
    found, seen = read_vitals(os.getpid()), psutil.Process()
    assert found.memory == pytest.approx(seen.memory_info().rss, rel=0.1)
    assert found.threads == seen.num_threads()
    assert found.descriptors == pytest.approx(seen.num_fds(), abs=2)  # the folder that is read is one
    assert found.cpu_s == pytest.approx(sum(seen.cpu_times()[:2]), abs=1)


def test_another_thread_and_another_file_count(tmp_path) -> None:
    before, done = read_vitals(os.getpid()), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with (tmp_path / "file").open("w"):
        after = read_vitals(os.getpid())
    done.set()
    thread.join()
    assert (after.threads, after.descriptors) == (before.threads + 1, before.descriptors + 1)


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        read_vitals(2**22 + 1)  # beyond the highest number that a process can have
