"""malloc's thresholds are raised, and free memory is handed back, where there is glibc and only there."""

import asyncio
import ctypes
import platform
import resource
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.system import memory


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_free_end_of_a_threads_heap_is_handed_back() -> None:
    """`malloc_trim` alone leaves it."""
    memory.keep_freed_memory()
    measured: list[float] = []

    def work() -> None:
        block = b"x" * 30_000_000
        measured.append(resident())
        del block
        memory.give_back()
        measured.append(resident())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    full, given_back = measured
    assert given_back < full - 20e6


@pytest.mark.parametrize("trimmed", [1, 0])
def test_it_is_told_whether_anything_was_handed_back(fake_library, trimmed: int) -> None:
    """And the threshold is what it was."""
    mallopt = FakeMalloc(1, 1)
    fake_library(malloc_trim=lambda keep: trimmed, mallopt=mallopt, malloc=FakeFunction(4096), free=FakeFunction(None))
    assert memory.give_back() is bool(trimmed)
    assert mallopt.calls == [(-1, 128 * 2**10), (-1, 64 * 2**20)]


class FakeFunction:
    """Of a C library; its types can be set."""

    def __init__(self, answer: int | None) -> None:
        self.answer = answer

    def __call__(self, argument: int) -> int | None:
        return self.answer


def test_another_c_library_hands_back_by_itself(fake_library) -> None:
    fake_library()
    assert memory.give_back() is False


def test_a_process_that_has_grown_hands_back_when_it_is_quiet(run, monkeypatch) -> None:
    """Not while it is busy, and not again before it has grown again."""
    sizes, given, busy = [100, 110, 200, 200, 150, 160], [], [True, False]
    monkeypatch.setattr(memory, "_LOOK_S", 0)
    monkeypatch.setattr(memory, "_WORTH_BYTES", 50)
    monkeypatch.setattr(memory, "_resident", lambda: sizes.pop(0) if len(sizes) > 1 else sizes[0])
    monkeypatch.setattr(memory, "give_back", lambda: given.append(len(sizes)))

    async def watched() -> None:
        watching = asyncio.create_task(memory.give_back_when_quiet(lambda: busy.pop(0)))
        while len(sizes) > 1:
            await asyncio.sleep(0.001)
        watching.cancel()
        await asyncio.wait({watching})

    run(watched())
    assert given == [2], "after the second look at 200, of which it kept 150"
    assert not busy
