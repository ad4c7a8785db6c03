"""When glibc hands memory back: not between pictures, as each time costs page faults on the next picture, but after a
model has left.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 64 * 2**20  # free memory at the top of a heap that is kept
_LARGEST_ON_HEAP = 32 * 2**20  # glibc's own maximum on 64-bit systems; larger blocks go back to the system when freed


def keep_freed_memory() -> bool:
    """Raise malloc's trim and mmap thresholds; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP))


def give_back() -> bool:
    """Hand all free memory back to the system; False where there was none, or the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
