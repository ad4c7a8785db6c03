"""The models in service: each opened, checked, warmed and proven on its golden pictures before it answers.

A version that fails is passed over for the newest older one that holds, and the reason is kept for the log.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bundle import golden
from bundle.errors import AntherError, BundleRefused, ModelNotFound, VersionNotFound
from bundle.repository import Bundle, Repository
from service.engine import Engine
from service.errors import InvalidArgument, NoModelReady

log = logging.getLogger(__name__)

OpenEngine = Callable[[bytes], Engine]


@dataclass(frozen=True)
class LiveModel:
    """A version that may take traffic, with what its checks showed."""

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

    @cached_property
    def labels(self) -> tuple[str, str]:
        """Name and version as metrics carry them."""
        return self.name, str(self.version)


@dataclass
class Registry:
    """Finds the live model for a request. `default` answers requests that name no model."""

    repository: Repository
    open_engine: OpenEngine
    default: str = ""
    refused: dict[str, str] = field(default_factory=dict)  # 'name/version' → why it does not serve
    _live: dict[str, LiveModel] = field(default_factory=dict)

    def load_all(self) -> None:
        """Bring the newest version that holds of every model into service. Raises `NoModelReady` where none does."""
        for name in self.repository.models():
            self._load_newest_good(name)
        if not self._live:
            reasons = "; ".join(f"{which}: {why}" for which, why in self.refused.items()) or "there is none"
            raise NoModelReady(self.repository.root, reasons)
        if self.default and self.default not in self._live:
            raise ModelNotFound(self.default, list(self._live))

    def live(self) -> list[LiveModel]:
        """Sorted by name."""
        return [self._live[name] for name in sorted(self._live)]

    def find(self, name: str = "", version: int = 0) -> LiveModel:
        """The live model of that name; '' is the default or the only one, version 0 whichever serves.

        Raises `ModelNotFound`, `VersionNotFound` or `InvalidArgument`.
        """
        model = self.named(name)
        if model is None and name:
            raise ModelNotFound(name, sorted(self._live))
        if model is None:
            raise InvalidArgument("model", "", f"one of {', '.join(sorted(self._live))}: several models serve")
        if version not in (0, model.version):
            raise VersionNotFound(model.name, version, [model.version])
        return model

    def named(self, name: str) -> LiveModel | None:
        """The live model that a request means by `name`; None where there is no such one."""
        if not name and not self.default and len(self._live) == 1:
            return next(iter(self._live.values()))
        return self._live.get(name or self.default)

    def close(self) -> None:
        for model in self._live.values():
            model.engine.close()

    def _load_newest_good(self, name: str) -> None:
        for version in reversed(self.repository.versions(name)):
            try:
                self._live[name] = self._load(name, version)
            except (BundleRefused, VersionNotFound, OSError) as exc:  # the last two: removed or locked meanwhile
                self.refused[f"{name}/{version}"] = str(exc)
                log.error("refused %s/%d: %s", name, version, exc)
            else:
                return

    def _load(self, name: str, version: int) -> LiveModel:
        started = time.monotonic()
        bundle = self.repository.open(name, version)
        engine = self._engine(bundle)
        try:
            difference = _prove(bundle, engine)
        except AntherError:
            engine.close()
            raise
        model = LiveModel(bundle, engine, difference, time.monotonic() - started)
        log.info(
            "serving %s/%d on %s: golden pictures equal, logits within %.1e, loaded in %.2f s",
            name,
            version,
            engine.provider,
            difference,
            model.load_s,
        )
        return model

    def _engine(self, bundle: Bundle) -> Engine:
        try:
            return self.open_engine(bundle.read(bundle.manifest.model.file))
        except (AntherError, ModuleNotFoundError):  # a missing runtime is no fault of the bundle
            raise
        except Exception as exc:  # ONNX Runtime's own exceptions share no base class
            raise BundleRefused(f"{bundle.path}: the runtime cannot load the model ({exc})") from exc


def _prove(bundle: Bundle, engine: Engine) -> float:
    manifest = bundle.manifest
    tolerance = manifest.tolerances.get(engine.provider, {}).get(manifest.model.precision)
    if tolerance is None:
        raise BundleRefused(
            f"{bundle.path}: the manifest allows no {manifest.model.precision} on {engine.provider}; "
            f"it names {', '.join(manifest.tolerances)}"
        )
    try:
        return golden.replay(golden.load(bundle), manifest.preprocessing, _checked(bundle, engine), tolerance)
    except AntherError:
        raise
    except Exception as exc:  # a model with other inputs or outputs than it claims
        raise BundleRefused(f"{bundle.path}: the model cannot answer a golden picture ({exc})") from exc


def _checked(bundle: Bundle, engine: Engine) -> golden.Infer:
    """The engine's logits; the golden pictures hold no probabilities, so these are checked on the way."""
    labels, temperature = bundle.manifest.labels, bundle.manifest.calibration.temperature

    def infer(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        probabilities, logits, _ = engine.run((pixels,))
        if probabilities.shape != (len(pixels), len(labels)):
            raise BundleRefused(f"{bundle.path}: probabilities of shape {probabilities.shape} for {len(labels)} labels")
        if not np.allclose(probabilities, _softmax(logits / temperature), atol=1e-3):
            raise BundleRefused(f"{bundle.path}: the probabilities are not softmax(logits / {temperature})")
        return logits

    return infer


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return softmax
