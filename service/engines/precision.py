"""Which of a bundle's models is computed: the primary one, or the same one in eight bits.

Eight bits are faster where the processor multiplies and sums bytes in one instruction, and hardly anywhere else.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from bundle.errors import BundleRefused
from bundle.manifest import CUDA, TF32, Manifest
from bundle.repository import Bundle
from bundle.variant import LowPrecision
from service.config import Precision
from service.engines.runtime import CPU

_BYTE_PRODUCTS = frozenset(
    {"avx512_vnni", "avx_vnni", "avx10_1", "asimddp", "i8mm"}
)  # as Linux names them, x86 and Arm
_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def multiplies_bytes(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the processor has an instruction for sums of products of bytes (VNNI on x86, dot product on Arm)."""
    try:
        text = cpu_info.read_text()
    except OSError:  # another system than Linux: what cannot be known is not relied on
        return False
    lines = (line.partition(":") for line in text.splitlines())
    found = {word for name, _, value in lines if name.strip() in {"flags", "Features"} for word in value.split()}
    return bool(found & _BYTE_PRODUCTS)


def choose(bundle: Bundle, wanted: Precision, provider: str, fast_bytes: Callable[[], bool] = multiplies_bytes) -> str:
    """What to compute in; `Manifest.file_of` has the file for it.

    'auto' takes a variant that its manifest calls worth it, on a CPU that is made for it. Raises `BundleRefused` where
    the bundle cannot do what is wanted.
    """
    manifest = bundle.manifest
    if wanted in get_args(LowPrecision):
        _require(bundle, wanted, provider)
        return wanted
    if wanted == "auto" and provider == CPU and fast_bytes():
        allowed = manifest.tolerances.get(provider, {})
        variants = [found for found in manifest.variants if found.worth_it(manifest.metrics.top1)]
        usable = [found for found in variants if found.precision in allowed]
        if usable:
            return max(usable, key=lambda found: found.speedup).precision
    return primary_on(manifest, provider)


def primary_on(manifest: Manifest, provider: str) -> str:
    """The primary model's own precision, but 'tf32' on CUDA where fp32 has a tolerance for that."""
    own = manifest.model.precision
    return TF32 if provider == CUDA and own == "fp32" and TF32 in manifest.tolerances.get(CUDA, {}) else own


def _require(bundle: Bundle, wanted: str, provider: str) -> None:
    if bundle.manifest.variant(wanted) is None:
        raise BundleRefused(
            f"{bundle.path}: it holds no {wanted} model; serve with --precision auto or fp32, "
            f"or export the run again with --{wanted}"
        )
    if wanted not in bundle.manifest.tolerances.get(provider, {}):
        raise BundleRefused(
            f"{bundle.path}: its {wanted} model is not meant for {provider}; serve with --precision auto or fp32"
        )
