"""Memory in use comes to lie on huge pages, other memory does not, and a system without them is left alone."""

import asyncio
import ctypes
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from service.system import huge_pages

MB = 2**20
# In a process of its own: memory of 16 MB that is written all over, and as much of which little is.
SCRIPT = """
import json, mmap, re
from service.system.huge_pages import gather

def measured():
    rollup = open("/proc/self/smaps_rollup").read()
    return [int(re.search(rf"{name}: *(\\d+) kB", rollup)[1]) * 1024 for name in ("AnonHugePages", "Rss")]

def block():
    return mmap.mmap(-1, 16 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

gather()
before = measured()
dense = block()
dense.write(b"x" * len(dense))
first, found = gather(), measured()
sparse = block()
for at in range(0, len(sparse), 2**20):
    sparse[at] = 1
second, after = gather(), measured()
assert dense[:] == b"x" * len(dense)
print(json.dumps([first, second, before, found, after]))
"""


@pytest.mark.skipif(huge_pages.gather() is None, reason="this system makes no huge pages when asked")
def test_dense_memory_lies_on_huge_pages_and_sparse_memory_stays_small() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    first, second, before, found, after = json.loads(done.stdout)
    assert found[0] - before[0] >= 14 * MB  # a block need not begin where a huge page does
    assert second - first <= 1
    assert after[1] - found[1] < 4 * MB


class FakeFunction:
    """Of a C library; its types can be set."""

    def __init__(self, answer) -> None:
        self.answer, self.calls = answer, []

    def __call__(self, *arguments):
        self.calls.append(arguments)
        return self.answer(*arguments)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """`system(madvise, mincore)` stands in for the C library, on a machine with huge pages of 2 MB."""
    size = tmp_path / "hpage_pmd_size"
    size.write_text(f"{2 * MB}\n")
    monkeypatch.setattr(huge_pages, "_SIZE", size)
    monkeypatch.setattr(huge_pages, "_private_memory", lambda: iter([(3 * MB, 12 * MB), (20 * MB, 21 * MB)]))

    def install(madvise, mincore=lambda *_: 0):
        functions = SimpleNamespace(madvise=FakeFunction(madvise), mincore=FakeFunction(mincore))
        monkeypatch.setattr(ctypes, "CDLL", lambda name: functions)
        return functions

    return install


def resident(*shares: float):
    """A `mincore` by which these shares of the region's huge pages are in use; the other bits mean nothing."""

    def mincore(address: int, length: int, found: int) -> int:
        assert length == len(shares) * 2 * MB
        small = b"".join(b"\xff" * round(share * 512) + b"\xfe" * (512 - round(share * 512)) for share in shares)
        ctypes.memmove(found, small, len(small))
        return 0

    return mincore


def test_what_is_half_in_use_is_asked_for_by_its_address(system) -> None:
    functions = system(lambda *_: 0, resident(1.0, 0.49, 0.5, 0.0))
    assert huge_pages.gather() == 2
    assert functions.madvise.calls == [(None, 0, 25), (4 * MB, 2 * MB, 25), (8 * MB, 2 * MB, 25)]


def test_a_page_that_is_refused_is_not_counted(system) -> None:
    system(lambda address, *_: -1 if address == 4 * MB else 0, resident(1.0, 1.0, 1.0, 0.0))
    assert huge_pages.gather() == 2


def test_memory_that_was_unmapped_meanwhile_is_passed_over(system) -> None:
    system(lambda *_: 0, lambda *_: -1)
    assert huge_pages.gather() == 0


def test_an_older_kernel_is_asked_once(system) -> None:
    functions = system(lambda *_: -1)
    assert huge_pages.gather() is None
    assert functions.madvise.calls == [(None, 0, 25)]


def test_a_system_without_huge_pages_is_not_asked(system, monkeypatch, tmp_path) -> None:
    functions = system(lambda *_: 0)
    monkeypatch.setattr(huge_pages, "_SIZE", tmp_path / "absent")
    assert huge_pages.gather() is None
    assert functions.madvise.calls == []


@pytest.mark.parametrize(
    ("found", "expected"), [([3, 4, 5, 6, 6, 6, 6, 6, None], [1, 2, 4, 8, 16, 32, 60, 60]), ([None], [])]
)
def test_it_gathers_ever_less_often(monkeypatch, found, expected) -> None:
    paused: list[float] = []
    counts = iter(found)

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    monkeypatch.setattr(huge_pages, "gather", lambda: next(counts))
    monkeypatch.setattr(huge_pages, "asyncio", SimpleNamespace(to_thread=asyncio.to_thread, sleep=pause))
    asyncio.run(huge_pages.keep_gathering())
    assert paused == expected


def test_where_it_fails_it_says_so_and_ends(monkeypatch, caplog) -> None:
    def gather() -> int:
        raise PermissionError("/proc/self/maps")

    monkeypatch.setattr(huge_pages, "gather", gather)
    asyncio.run(asyncio.wait_for(huge_pages.keep_gathering(), 5))
    assert "no longer moved" in caplog.text
    assert "/proc/self/maps" in caplog.text
