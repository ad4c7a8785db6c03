"""Memory in use on pages of 2 MB instead of 4 KB: a processor keeps the places of some 2,000 pages, and a model's
weights alone lie on more of 4 KB.

Linux does so by itself only for memory that somebody advised it of, and within minutes. Asked to, it does so at once
(MADV_COLLAPSE, Linux 6.1).
"""

import asyncio
import ctypes
import logging
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

_MADV_COLLAPSE = 25  # linux/mman.h
_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_DENSE = 0.5  # of a huge page, in use: with less it would cost more memory than it is worth
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


async def keep_gathering() -> None:
    """`gather` at once and ever less often: memory becomes dense as it is used, and each new version brings its own.

    Where it fails, the server goes on without.
    """
    pause_s = _FIRST_PAUSE_S
    try:
        while (count := await asyncio.to_thread(gather)) is not None:
            log.debug("%d huge pages", count)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    except Exception:
        log.exception("memory is no longer moved to huge pages")


def gather() -> int | None:
    """Have this process's dense private memory lie on huge pages, and count them; None where the system cannot."""
    library: Any = ctypes.CDLL(None)
    if not _offered(library):
        return None
    size = int(_SIZE.read_text())
    # What another thread has just unmapped, or the system finds no room for, stays as it is until the next time.
    return sum(_advised(library, address, size) for address in _dense(library, size))


def _offered(library: Any) -> bool:
    """A kernel that knows the advice has nothing against it for no memory at all."""
    return _SIZE.exists() and _advised(library, None, 0)


def _advised(library: Any, address: int | None, length: int) -> bool:
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return bool(library.madvise(address, length, _MADV_COLLAPSE) == 0)


def _dense(library: Any, size: int) -> Iterator[int]:
    """Addresses of what could be a huge page and is mostly in use."""
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    for start, end in _private_memory():
        first, count = -(-start // size) * size, end // size - -(-start // size)
        if count <= 0:
            continue
        resident = np.zeros((count, size // mmap.PAGESIZE), np.uint8)  # the lowest bit, for each small page
        if library.mincore(first, count * size, resident.ctypes.data) == 0:
            dense = (resident & 1).mean(axis=1) >= _DENSE
            yield from (first + int(index) * size for index in dense.nonzero()[0])


def _private_memory() -> Iterator[tuple[int, int]]:
    """From malloc and the like: writable, of no file. The lines are as in proc(5)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions == "rw-p" and inode == "0" and (not name or name[0].startswith(("[heap]", "[anon"))):
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)
