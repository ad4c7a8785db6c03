"""Can this processor sum products of bytes in one instruction? Eight bits pay off there, and hardly anywhere else."""

import functools
from pathlib import Path

_SUMS_OF_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx10_1", "asimddp", "i8mm"})  # as Linux calls them
_CPU_INFO = Path("/proc/cpuinfo")

EXACT_INT8 = ("session.x64quantprecision", "1")
"""ONNX Runtime's setting for x86 without such an instruction: its fast kernels there saturate sums of two products.

Elsewhere it must not be set: the exact kernels took three times as long on a processor whose fast ones are exact.
"""


@functools.cache
def multiplies_bytes(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether it has VNNI on x86, or the dot product on Arm. False where the system does not say."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    found = {word for name, _, value in lines if name.strip() in {"flags", "Features"} for word in value.split()}
    return bool(found & _SUMS_OF_PRODUCTS)
