"""The engine: pixels in, probabilities and logits out, on a device that it proves to be the one asked for."""

import os
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bundle.preprocessing import Pixels
from service.config import Device
from service.errors import DeviceUnavailable, RuntimeConflict, RuntimeMissing

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search takes seconds for every new batch size
    "use_tf32": "0",  # 10-bit mantissas would pass through the golden pictures' tolerance
}


class Outputs(NamedTuple):
    """One row a picture, float32: probabilities [N, C], logits [N, C], evidence [N, C, h, w] where it was asked for."""

    probabilities: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    evidence: npt.NDArray[np.float32] | None = None


class Engine(Protocol):
    """Safe to call from several threads at once."""

    provider: str
    batch_sizes: tuple[int, ...]
    """Ascending: the numbers of rows that the device runs; any other number is filled up to the next of them."""

    def run(self, parts: Sequence[Pixels], evidence: bool = False) -> Outputs:
        """Parts uint8 [n, H, W, 3], together at most the largest batch size, to one row for each of their rows."""
        ...

    def close(self) -> None:
        """Give the model's memory back; `run` must not be called again."""
        ...


class OnnxEngine:
    """An ONNX Runtime session on the CPU. One serves every lane: each call computes on its caller's thread."""

    batch_sizes: tuple[int, ...] = (1,)

    def __init__(self, model: bytes, device: Device) -> None:
        self._session: Any = _session(model, device)
        self.provider: str = self._session.get_providers()[0]

    def run(self, parts: Sequence[Pixels], evidence: bool = False) -> Outputs:
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        names = ("probabilities", "logits", "evidence") if evidence else ("probabilities", "logits")
        return Outputs(*self._session.run(names, {"pixels": pixels}))

    def close(self) -> None:
        self._session = None


def check_runtime(installed: Sequence[str] | None = None) -> None:
    """Exactly one ONNX Runtime distribution must be installed. Raises `RuntimeMissing` or `RuntimeConflict`."""
    found = [name for name in _RUNTIMES if _is_installed(name)] if installed is None else list(installed)
    if not found:
        raise RuntimeMissing
    if len(found) > 1:
        raise RuntimeConflict(" and ".join(found))


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _session(model: bytes, device: Device) -> Any:
    # From 1.29 on the runtime reports its use to its maker, starting when it is imported, unless this says otherwise.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    providers: list[Any] = [CPU]
    if device != "cpu" and CUDA in onnxruntime.get_available_providers():
        onnxruntime.preload_dlls(directory="")  # the CUDA libraries that the extras installed
        providers.insert(0, (CUDA, _CUDA_OPTIONS))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    session.disable_fallback()
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise DeviceUnavailable(device, session.get_providers()[0])
    return session
