"""ONNX Runtime on the CPU, one thread a call, as the service's lanes run it."""

from typing import Any

import numpy as np

from training.errors import LibraryMissing
from training.lanes import Floats, Infer, Pixels


def infer(model: bytes, *outputs: str) -> Infer:
    """uint8 [N, H, W, 3] to the named float32 outputs [N, C] of the graph, side by side. Raises `LibraryMissing`."""
    running = session(model)

    def run(pixels: Pixels) -> Floats:
        answer: Floats = np.concatenate(running.run(outputs, {"pixels": pixels}), axis=1)
        return answer

    return run


def session(model: bytes) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU provider that leaves the other cores to other lanes."""
    try:
        import onnxruntime
    except ModuleNotFoundError as exc:
        raise LibraryMissing("onnxruntime", "cpu") from exc
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
