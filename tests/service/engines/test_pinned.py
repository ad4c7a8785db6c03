"""Page-locked memory is used, given back once, and done without where it cannot be had."""

import ctypes
import logging
from typing import Any

import pytest

from service.engines.pinned import cuda_runtime, page_locked


class FakeCudart:
    """Ordinary memory under the names of the CUDA runtime; `error` is what every call gives back."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.blocks: dict[int, Any] = {}

    def cudaHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802
        if self.error == 0:
            block = ctypes.create_string_buffer(b"\xff" * size.value, size.value)
            ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.addressof(block)
            self.blocks[ctypes.addressof(block)] = block
        return self.error

    def cudaFreeHost(self, address: ctypes.c_void_p) -> int:  # noqa: N802
        assert address.value is not None
        del self.blocks[address.value]
        return self.error


def test_the_pixels_lie_in_the_librarys_memory_zeroed() -> None:
    cudart = FakeCudart()
    pixels, _ = page_locked((2, 3, 4, 3), cudart)
    (block,) = cudart.blocks.values()
    assert pixels.shape == (2, 3, 4, 3)
    assert not pixels.any()
    pixels[:] = 7
    assert block.raw == b"\x07" * 72


def test_it_is_given_back(caplog) -> None:
    cudart = FakeCudart()
    pixels, free = page_locked((2, 3), cudart)
    del pixels
    free()
    assert cudart.blocks == {}
    assert caplog.text == ""


def test_what_cannot_be_given_back_is_logged(caplog) -> None:
    cudart = FakeCudart()
    _, free = page_locked((2, 3), cudart)
    cudart.error = 4
    free()
    assert "cudaFreeHost gave error 4" in caplog.text


def test_ordinary_memory_does_where_no_more_can_be_locked(caplog) -> None:
    pixels, free = page_locked((2, 3), FakeCudart(error=2))
    assert pixels.shape == (2, 3)
    assert not pixels.any()
    free()
    assert "pageable memory, which is slower: cudaHostAlloc gave error 2" in caplog.text


def test_a_library_that_is_not_there_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert cuda_runtime("99.1") is None
    assert "libcudart.so.99 cannot be loaded" in caplog.text
