"""When glibc hands memory back: not between pictures, as each time costs page faults on the next picture, but after a
model has left.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 64 * 2**20  # free memory at the top of a heap that is kept
_LARGEST_ON_HEAP = 32 * 2**20  # glibc's own maximum on 64-bit systems; larger blocks go back to the system when freed

_LOOKED_AT = 128 * 2**10  # bytes; freeing over 64 KiB joins neighbours and looks at the end


def keep_freed_memory() -> bool:
    """Raise malloc's trim and mmap thresholds; False where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP))


def give_back() -> bool:
    """Hand all free memory back to the system, for who has called `keep_freed_memory`.

    False where there was none, or the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if getattr(library, "malloc_trim", None) is None:
        return False
    given = bool(library.malloc_trim(0))
    _shrink_own_heap(library)
    return given


def _shrink_own_heap(library: ctypes.CDLL) -> None:
    """`malloc_trim` leaves the free end of a thread's heap alone: only freeing a larger block looks at that."""
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.mallopt(_M_TRIM_THRESHOLD, _LOOKED_AT)
    library.free(library.malloc(2 * _LOOKED_AT))
    library.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
