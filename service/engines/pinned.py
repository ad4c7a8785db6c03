"""Page-locked memory, which a GPU reads at the full speed of the bus.

ONNX Runtime's Python API does not offer it, so two functions of the CUDA library that it has loaded are called.
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
    """The loaded library of this version of CUDA, such as '13.0'; None where there is none."""
    name = f"libcudart.so.{version.partition('.')[0]}"
    try:
        return ctypes.CDLL(name)
    except OSError as exc:
        log.warning("pixels cross the bus from pageable memory, which is slower: %s cannot be loaded (%s)", name, exc)
        return None


def page_locked(shape: tuple[int, ...], cudart: Any) -> tuple[Pixels, Callable[[], None]]:
    """Zeroed uint8 memory, and the function that frees it.

    Ordinary memory where the library refuses: the system may limit how much a process can lock.
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
