"""malloc's thresholds are raised, and free memory is handed back, where there is glibc and only there."""

import ctypes
import platform
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest

from service import memory


class FakeMalloc:
    def __init__(self, *answers: int) -> None:
        self.answers, self.calls = list(answers), []

    def __call__(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return self.answers.pop(0)


@pytest.fixture
def fake_library(monkeypatch: pytest.MonkeyPatch):
    return lambda **functions: monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(**functions))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_takes_both_thresholds() -> None:
    assert memory.keep_freed_memory() is True


def test_both_thresholds_are_set(fake_library) -> None:
    mallopt = FakeMalloc(1, 1)
    fake_library(mallopt=mallopt)
    assert memory.keep_freed_memory() is True
    assert mallopt.calls == [(-1, 64 * 2**20), (-3, 32 * 2**20)]  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h


@pytest.mark.parametrize("answers", [(0, 1), (1, 0)])
def test_a_refused_threshold_is_told(fake_library, answers: tuple[int, int]) -> None:
    fake_library(mallopt=FakeMalloc(*answers))
    assert memory.keep_freed_memory() is False


def test_another_c_library_is_left_alone(fake_library) -> None:
    fake_library()
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_handed_back() -> None:
    """Blocks too small to be mapped on their own, so that they come from a heap and stay there when freed."""
    memory.keep_freed_memory()
    blocks = [bytes(1000) for _ in range(50_000)]
    last = bytes(1000)  # above them, so that the heap's end does not move
    full = resident()
    blocks.clear()
    assert resident() > full - 20e6
    assert memory.give_back() is True
    assert resident() < full - 20e6
    del last


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("trimmed", [True, False])
def test_it_is_told_whether_anything_was_handed_back(fake_library, trimmed: bool) -> None:
    fake_library(malloc_trim=lambda keep: int(trimmed))
    assert memory.give_back() is trimmed


def test_another_c_library_hands_back_by_itself(fake_library) -> None:
    fake_library()
    assert memory.give_back() is False
