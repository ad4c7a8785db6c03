"""Page-locked memory, which a GPU reads at the full speed of the bus. ONNX Runtime's Python API gives none of it.

It comes from the CUDA runtime library that the session has loaded, by two of its functions.
"""

import ctypes
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bundle.preprocessing import Pixels

log = logging.getLogger(__name__)


def cuda_runtime(version: str) -> Any:
    """The loaded library of this version of CUDA, like '13.0'; None where there is no such one."""
    name = f"libcudart.so.{version.partition('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError as exc:
        log.warning("pixels cross the bus from pageable memory, which is slower: %s cannot be loaded (%s)", name, exc)
        return None


def page_locked(shape: tuple[int, ...], cudart: Any) -> tuple[Pixels, Callable[[], None]]:
    """Zeroed uint8 memory, and the function that gives it back, after which nobody may touch it.

    Ordinary memory where the library refuses: there may be a limit on how much a process can lock.
    """
    address, size = ctypes.c_void_p(), math.prod(shape)
    code = cudart.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(0))
    if code != 0:
        log.warning("pixels cross the bus from pageable memory, which is slower: cudaHostAlloc gave error %d", code)
        return np.zeros(shape, np.uint8), lambda: None
    assert address.value is not None
    pixels = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address.value)).reshape(shape)
    pixels[:] = 0
    return pixels, lambda: _free(cudart, address)


def _free(cudart: Any, address: ctypes.c_void_p) -> None:
    if (code := cudart.cudaFreeHost(address)) != 0:
        log.warning("page-locked memory was not given back: cudaFreeHost gave error %d", code)
