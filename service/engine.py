"""The engine: pixels in, probabilities and logits out, on a device that it proves to be the one asked for."""

import os
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.config import Device
from service.errors import DeviceUnavailable, RuntimeConflict, RuntimeMissing

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search takes seconds for every new batch size
    "use_tf32": "0",  # 10-bit mantissas would pass through the golden pictures' tolerance
}


class Engine(Protocol):
    """Safe to call from several threads at once."""

    provider: str

    def run(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """uint8 [N, H, W, 3] to (probabilities, logits), each float32 [N, C]."""
        ...

    def close(self) -> None:
        """Give the model's memory back; `run` must not be called again."""
        ...


class OnnxEngine:
    """An ONNX Runtime session. One session serves every lane: each call computes on its caller's thread."""

    def __init__(self, model: bytes, device: Device) -> None:
        self._session: Any = _session(model, device)
        self.provider: str = self._session.get_providers()[0]

    def run(self, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        probabilities, logits = self._session.run(["probabilities", "logits"], {"pixels": pixels})
        return probabilities, logits

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
