"""Which of a bundle's models runs: the primary one, or its variant in eight bits."""

from collections.abc import Callable

from bundle.errors import BundleRefused
from bundle.manifest import CUDA, TF32, Manifest
from bundle.precision import Precision, VariantPrecision, multiplies_bytes
from bundle.repository import Bundle
from service.config import PrecisionChoice
from service.engines.runtime import CPU


def choose(
    bundle: Bundle, wanted: PrecisionChoice, provider: str, fast_bytes: Callable[[], bool] = multiplies_bytes
) -> Precision:
    """The precision to compute in; `Manifest.file_of` has the file for it.

    'auto' takes a variant that its manifest calls worth it, on a CPU that is made for it. Raises `BundleRefused` where
    the bundle does not have what is wanted.
    """
    if wanted == "fp32":
        return primary_on(bundle.manifest, provider)
    if wanted == "auto":
        return _fastest(bundle.manifest, provider, fast_bytes)
    _require(bundle, wanted, provider)
    return wanted


def _fastest(manifest: Manifest, provider: str, fast_bytes: Callable[[], bool]) -> Precision:
    if provider == CPU and fast_bytes():
        allowed = manifest.tolerances.get(provider, {})
        variants = [found for found in manifest.variants if found.worth_it(manifest.metrics.top1)]
        usable = [found for found in variants if found.precision in allowed]
        if usable:
            return max(usable, key=lambda found: found.speedup).precision
    return primary_on(manifest, provider)


def primary_on(manifest: Manifest, provider: str) -> Precision:
    """The primary model's precision; 'tf32' in place of 'fp32' on CUDA where the manifest has a tolerance for it."""
    own = manifest.model.precision
    return TF32 if provider == CUDA and own == "fp32" and TF32 in manifest.tolerances.get(CUDA, {}) else own


def _require(bundle: Bundle, wanted: VariantPrecision, provider: str) -> None:
    if bundle.manifest.variant(wanted) is None:
        raise BundleRefused(
            f"{bundle.path}: it holds no {wanted} model; serve with --precision auto or fp32, "
            f"or export the run again with --{wanted}"
        )
    if wanted not in bundle.manifest.tolerances.get(provider, {}):
        raise BundleRefused(
            f"{bundle.path}: its {wanted} model is not meant for {provider}; serve with --precision auto or fp32"
        )
