"""When glibc returns memory to the system: after a model has left and after much was in use, not between images.

With raised thresholds a 3-megapixel image took 49.8 ms of CPU time in place of 54.6, since its buffers cause no page
faults (medians of six processes each, one core); small images gain nothing. Therefore freed memory is handed back
explicitly, or a retired model's memory would stay.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 64 * 2**20  # free memory at the top of a heap that is kept
_MAX_ON_HEAP = 32 * 2**20  # glibc's own maximum on 64-bit systems; larger blocks go back to the system when freed

_LOOK_S = 5.0  # between looks at how much memory the process has
_WORTH_BYTES = 32 * 2**20  # so much more than after the last time is worth handing back

_TRIM_BYTES = 128 * 2**10  # freeing a block over 64 KiB makes glibc trim the heap's end


def keep_freed_memory() -> bool:
    """Raise malloc's trim and mmap thresholds; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _MAX_ON_HEAP))


def give_back() -> bool:
    """Return all free memory to the system; for a process that has called `keep_freed_memory`.

    False where there was none, or the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if getattr(library, "malloc_trim", None) is None:
        return False
    given = bool(library.malloc_trim(0))
    _shrink_own_heap(library)
    return given


async def give_back_when_quiet(busy: Callable[[], bool]) -> NoReturn:
    """Until cancelled: where the process has grown much and is not `busy`, hand its free memory back."""
    kept = _resident()
    while True:
        await asyncio.sleep(_LOOK_S)
        if _resident() > kept + _WORTH_BYTES and not busy():
            await asyncio.to_thread(give_back)
            kept = _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _shrink_own_heap(library: ctypes.CDLL) -> None:
    """`malloc_trim` does not trim the free end of a thread's heap; freeing a larger block does."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
    library.free(library.malloc(2 * _TRIM_BYTES))
    library.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
