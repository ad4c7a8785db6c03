"""The precisions in which a model computes, and whether this processor is made for eight bits."""

import functools
from pathlib import Path
from typing import Literal

PrimaryPrecision = Literal["fp32", "fp16"]
"""Of the model that was trained."""

VariantPrecision = Literal["int8"]
"""Of a variant beside it, in a file of its own."""

Precision = Literal[PrimaryPrecision, VariantPrecision, "tf32"]
"""Of an engine. 'tf32' is fp32 with 10-bit mantissas in products, on CUDA only."""

_SUMS_OF_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx10_1", "asimddp", "i8mm"})  # as Linux calls them
_CPU_INFO = Path("/proc/cpuinfo")

EXACT_INT8 = ("session.x64quantprecision", "1")
"""ONNX Runtime's setting for x86 processors without such an instruction, whose fast kernels saturate sums.

Elsewhere it must not be set: the fast kernels are exact there, and the others take three times as long.
"""


@functools.cache
def multiplies_bytes(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether one instruction sums products of bytes: VNNI on x86, the dot product on Arm. False where unknown.

    Eight bits are hardly faster on other processors.
    """
    try:
        text = cpu_info.read_text()
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    found = {word for name, _, value in lines if name.strip() in {"flags", "Features"} for word in value.split()}
    return bool(found & _SUMS_OF_PRODUCTS)
