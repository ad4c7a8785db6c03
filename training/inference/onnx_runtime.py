"""ONNX Runtime on the CPU with one thread a call, as the service runs it."""

import os
from typing import Any

import numpy as np

from bundle.precision import EXACT_INT8, multiplies_bytes
from training.errors import LibraryMissing
from training.inference.batches import Floats, Infer, Pixels


def infer(model: bytes, *outputs: str) -> Infer:
    """uint8 [N, H, W, 3] to the named float32 outputs [N, C] of the graph, side by side. Raises `LibraryMissing`."""
    running = session(model)

    def run(pixels: Pixels) -> Floats:
        answer: Floats = np.concatenate(running.run(outputs, {"pixels": pixels}), axis=1)
        return answer

    return run


def session(model: bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU provider that leaves the other cores to other threads."""
    onnxruntime = _library()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if not multiplies_bytes():
        options.add_session_config_entry(*EXACT_INT8)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def version() -> str:
    """Of ONNX Runtime, whichever of its distributions is installed."""
    return str(_library().__version__)


def _library() -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # the runtime would report its use to its maker
    try:
        import onnxruntime
    except ModuleNotFoundError as exc:
        raise LibraryMissing("onnxruntime", "cpu") from exc
    return onnxruntime
