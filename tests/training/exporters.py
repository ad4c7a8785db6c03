"""Exports that take the time which they need.

Tracing for coverage doubles the time of an exporter, which is Python of other people. And torch parses the source of
its 500 translations to ONNX anew at each export, for a table that is always the same.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import onnxruntime.quantization
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """`function` without coverage's tracing of this thread, where there is some."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(trace)

    return run


@pytest.fixture(scope="session", autouse=True)
def quick_exports() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", untraced(torch.onnx.export))
        patch.setattr(onnxruntime.quantization, "quantize_static", untraced(onnxruntime.quantization.quantize_static))
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield
