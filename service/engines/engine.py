"""The engine: pixels in, probabilities and logits out. This module has its interface and the engine for a CPU."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bundle.precision import Precision
from bundle.preprocessing import Pixels
from bundle.repository import Bundle
from service.config import PrecisionChoice
from service.engines.precision import choose
from service.engines.runtime import CPU, open_session


class Outputs(NamedTuple):
    """One row for each image, float32: probabilities [N, C], logits [N, C], and on request evidence [N, C, h, w]."""

    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    evidence: npt.NDArray[np.float32] | None = None


def stacked(parts: Sequence[Outputs]) -> Outputs:
    """One `Outputs` with the rows of all parts, in order; evidence where every part has it."""
    if len(parts) == 1:
        return parts[0]
    probabilities, logits, maps = zip(*parts, strict=True)
    evidence = [found for found in maps if found is not None]
    return Outputs(
        np.concatenate(probabilities),
        np.concatenate(logits),
        np.concatenate(evidence) if len(evidence) == len(parts) else None,
    )


class Engine(Protocol):
    """Thread-safe."""

    provider: str
    precision: Precision
    """What it computes in."""
    batch_sizes: tuple[int, ...]
    """The numbers of rows that the device runs, ascending; any other number is padded to the next of them."""

    def run(self, parts: Sequence[Pixels], evidence: bool = False) -> Outputs:
        """Parts are uint8 [n, H, W, 3], together at most the largest batch size; one row in gives one row out."""
        ...

    def close(self) -> None:
        """Release the model's memory; `run` must not be called afterwards."""
        ...


OpenEngine = Callable[[Bundle], Engine]
"""Raises `BundleCorrupt`, `DeviceUnavailable`, and what ONNX Runtime raises for a model that it cannot load."""


class OnnxEngine:
    """An ONNX Runtime session on the CPU. All lanes share it: each call computes on its caller's thread."""

    provider: str = CPU
    batch_sizes: tuple[int, ...] = (1,)

    def __init__(self, model: bytes, precision: Precision = "fp32") -> None:
        self._session: Any = open_session(model)
        self.precision: Precision = precision

    def run(self, parts: Sequence[Pixels], evidence: bool = False) -> Outputs:
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        names = ("probabilities", "logits", "evidence") if evidence else ("probabilities", "logits")
        return Outputs(*self._session.run(names, {"pixels": pixels}))

    def close(self) -> None:
        self._session = None


def open_on_cpu(bundle: Bundle, precision: PrecisionChoice = "fp32") -> OnnxEngine:
    """An `OpenEngine` once `precision` is bound. Only the chosen one of the bundle's models is read."""
    chosen = choose(bundle, precision, CPU)
    return OnnxEngine(bundle.read(bundle.manifest.file_of(chosen)), chosen)
