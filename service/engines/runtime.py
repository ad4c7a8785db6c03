"""ONNX Runtime: exactly one distribution of it, and sessions that provably run on the device that was asked for.

ONNX Runtime falls back from CUDA to the CPU silently; this module raises instead.
"""

import contextlib
import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Literal

from bundle.precision import EXACT_INT8, multiplies_bytes
from service.config import Device
from service.errors import DeviceUnavailable, RuntimeConflict, RuntimeMissing

log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
Usable = Literal["cpu", "cuda"]

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
# The smallest model that a session can be opened for: y = Identity(x), both float32 [1], opset 18.
_PROBE = (
    b'\x08\n:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def check_runtime(installed: Sequence[str] | None = None) -> None:
    """Exactly one ONNX Runtime distribution must be installed. Raises `RuntimeMissing` or `RuntimeConflict`."""
    found = [name for name in _DISTRIBUTIONS if _is_installed(name)] if installed is None else list(installed)
    if not found:
        raise RuntimeMissing
    if len(found) > 1:
        raise RuntimeConflict(" and ".join(found))


def gpu_runtime_installed() -> bool:
    """Whether the distribution for GPUs is installed, without importing it; the GPU itself may still be missing."""
    return _is_installed("onnxruntime-gpu")


def usable_device(device: Device) -> Usable:
    """Where engines will run, by a trial session of one node. Raises `DeviceUnavailable` for 'cuda' without one."""
    if device == "cpu":
        return "cpu"
    unusable = _why_not_cuda()
    if unusable is None:
        return "cuda"
    if device == "cuda":
        raise unusable
    if CUDA in load_runtime().get_available_providers():
        log.warning("models run on the CPU: CUDA was tried, but the session runs on %s", unusable.facts["found"])
    return "cpu"


def _why_not_cuda() -> DeviceUnavailable | None:
    load_runtime()
    try:
        open_session(_PROBE, {})
    except DeviceUnavailable as exc:
        return exc
    except Exception as exc:  # a driver without a device, or too old; ONNX Runtime's exceptions share no base class
        unusable = DeviceUnavailable("cuda", f"nothing ({exc})")
        unusable.__cause__ = exc
        return unusable
    return None


def open_session(model: bytes, cuda: Mapping[str, str] | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU or, with options for its provider, on CUDA.

    Raises `DeviceUnavailable` where it does not run on CUDA, and what ONNX Runtime raises for a bad model.
    """
    onnxruntime = load_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each call computes on its caller's thread
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not multiplies_bytes():
        options.add_session_config_entry(*EXACT_INT8)
    if cuda is None:
        return onnxruntime.InferenceSession(model, options, providers=[CPU], enable_fallback=0)
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceUnavailable("cuda", CPU)
    _load_cuda_libraries()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for `nodes_by_provider`
    providers = [(CUDA, dict(cuda)), CPU]
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    if session.get_providers()[0] != CUDA:
        raise DeviceUnavailable("cuda", session.get_providers()[0])
    return session


def nodes_by_provider(session: Any) -> Counter[str]:
    """Provider → number of nodes of the optimized graph, for a session that was opened for CUDA."""
    found = Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] += len(part.get_nodes())
    return found


def require_on_cuda(session: Any) -> None:
    """Raises `DeviceUnavailable` where CUDA is listed and runs no node; a few nodes elsewhere are only logged."""
    found = nodes_by_provider(session)
    elsewhere = {name: count for name, count in found.items() if name != CUDA}
    if elsewhere and not found[CUDA]:
        raise DeviceUnavailable("cuda", ", ".join(elsewhere))
    if elsewhere:
        log.warning(
            "%d of %d nodes of the model do not run on CUDA: %s", sum(elsewhere.values()), found.total(), elsewhere
        )


def load_runtime() -> Any:
    """The module `onnxruntime`, imported when the first session is opened."""
    # From version 1.29 the runtime reports its use to its maker from the import on, unless this variable is set.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


@functools.cache
def _load_cuda_libraries() -> None:
    """Load the libraries that the extras installed. Complaints go to standard error; standard output has the banner."""
    with contextlib.redirect_stdout(sys.stderr):
        load_runtime().preload_dlls(directory="")


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
