"""Turns a version on the disk into a live model: open it, check its digests, warm it up, prove it.

The proof replays the golden pictures through this process's own decoder and engine, one by one and at every batch size
of the device. They must give the pixels and logits that training recorded.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from anther.errors import AntherError
from bundle import golden
from bundle.errors import BundleRefused, GoldenMismatch
from bundle.golden import Golden
from bundle.manifest import Metrics
from bundle.precision import Precision
from bundle.repository import Bundle, Repository
from bundle.variant import VariantMetrics
from service.engines.engine import Engine, OpenEngine, Outputs

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A version that may serve, with the results of its checks.

    Requests in progress hold references to it; its session is freed with the last one.
    """

    bundle: Bundle
    engine: Engine
    golden_difference: float  # largest absolute difference of a logit
    load_s: float

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def version(self) -> int:
        return self.bundle.version

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""
        return self.engine.precision

    @property
    def sha256(self) -> str:
        """Digest of the ONNX file that it runs, hexadecimal."""
        manifest = self.bundle.manifest
        return manifest.files[manifest.file_of(self.precision)]

    @property
    def test_metrics(self) -> Metrics | VariantMetrics:
        """Measured in this precision."""
        manifest = self.bundle.manifest
        variant = manifest.variant(self.precision)
        return manifest.metrics if variant is None else variant.metrics

    @cached_property
    def labels(self) -> tuple[str, str]:
        """Name and version as metrics carry them."""
        return self.name, str(self.version)


def load(
    repository: Repository, open_engine: OpenEngine, name: str, version: int, pause: Callable[[], None] = lambda: None
) -> LiveModel:
    """Load one version. `pause` is called after each step, so that a caller can rest in between.

    Raises what `Repository.open` and `golden.replay` raise, `BundleRefused` where the runtime cannot run the model, and
    whatever `open_engine` raises that is no fault of the bundle.
    """
    started = time.monotonic()
    bundle = repository.open(name, version)
    pause()
    engine = _engine(bundle, open_engine)
    pause()
    try:
        difference = _prove(bundle, engine, pause)
    except AntherError:
        engine.close()
        raise
    model = LiveModel(bundle, engine, difference, time.monotonic() - started)
    log.info(
        "loaded %s/%d in %s on %s: golden pictures equal, logits within %.1e, in %.2f s",
        name, version, engine.precision, engine.provider, difference, model.load_s,
    )  # fmt: skip
    return model


def _engine(bundle: Bundle, open_engine: OpenEngine) -> Engine:
    try:
        return open_engine(bundle)
    except (AntherError, ModuleNotFoundError):  # a missing runtime is no fault of the bundle
        raise
    except Exception as exc:  # ONNX Runtime's own exceptions share no base class
        raise BundleRefused(f"{bundle.path}: the runtime cannot load the model ({exc})") from exc


def _prove(bundle: Bundle, engine: Engine, pause: Callable[[], None]) -> float:
    """Replay the golden pictures, which also warms the engine up. Returns the largest difference of a logit."""
    tolerance, pictures = _tolerance(bundle, engine), golden.load(bundle).of(engine.precision)

    def infer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pause()
        return _checked(bundle, engine.run((pixels,)), len(pixels)).logits

    try:
        one_by_one = golden.replay(pictures, bundle.manifest.preprocessing, infer, tolerance)
        batched = [_prove_batch(bundle, engine, size, pictures, tolerance) for size in engine.batch_sizes if size > 1]
        if bundle.manifest.model.evidence:
            _prove_evidence(bundle, engine, pictures)
    except AntherError:
        raise
    except Exception as exc:  # a model with other inputs or outputs than it claims
        raise BundleRefused(f"{bundle.path}: the model cannot answer a golden picture ({exc})") from exc
    return max([one_by_one, *batched])


def _tolerance(bundle: Bundle, engine: Engine) -> float:
    manifest, precision = bundle.manifest, engine.precision
    tolerance = manifest.tolerances.get(engine.provider, {}).get(precision)
    if tolerance is None:
        raise BundleRefused(
            f"{bundle.path}: the manifest allows no {precision} on {engine.provider}; "
            f"it names {', '.join(manifest.tolerances)}"
        )
    return tolerance


def _prove_batch(bundle: Bundle, engine: Engine, size: int, pictures: Golden, tolerance: float) -> float:
    """Fill a batch with the golden pictures: the result of a row must not depend on the other rows."""
    rows = np.arange(size) % len(pictures.names)
    logits = _checked(bundle, engine.run((pictures.pixels[rows],)), size).logits
    differences = np.abs(logits - pictures.logits[rows]).max(axis=1)
    worst = int(differences.argmax())  # of several, a NaN is the worst
    if not differences[worst] <= tolerance:
        found = f"has, in a batch of {size}, a logit off by"
        picture = pictures.names[rows[worst]]
        raise GoldenMismatch(picture, found, f"{differences[worst]:.2e}", f"at most {tolerance:.2e}")
    return float(differences[worst])


def _prove_evidence(bundle: Bundle, engine: Engine, pictures: Golden) -> None:
    """Evidence has no recorded values; its shape must be one map per class."""
    evidence = engine.run((pictures.pixels[:1],), evidence=True).evidence
    found = None if evidence is None else evidence.shape
    if found is None or len(found) != 4 or found[:2] != (1, len(bundle.manifest.labels)):
        expected = f"[1, {len(bundle.manifest.labels)}, h, w]"
        raise BundleRefused(f"{bundle.path}: evidence of shape {found}; expected {expected}, as the manifest has it")


def _checked(bundle: Bundle, outputs: Outputs, rows: int) -> Outputs:
    """The golden pictures hold no probabilities, so these are checked against the logits."""
    labels, temperature = bundle.manifest.labels, bundle.manifest.calibration.temperature
    probabilities = outputs.probabilities
    if probabilities.shape != (rows, len(labels)):
        raise BundleRefused(f"{bundle.path}: probabilities of shape {probabilities.shape} for {len(labels)} labels")
    if not np.allclose(probabilities, _softmax(outputs.logits / temperature), atol=1e-3):
        raise BundleRefused(f"{bundle.path}: the probabilities are not softmax(logits / {temperature})")
    return outputs


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers: npt.NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return softmax
