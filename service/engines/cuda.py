"""The engine for a GPU: a fixed set of batch sizes, and two slots, of which one is filled while the other runs.

Only `device="cuda"` needs a GPU; tests run the same code with "cpu".
"""

import bisect
import dataclasses
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bundle.manifest import TF32
from bundle.precision import Precision
from bundle.preprocessing import Pixels
from bundle.repository import Bundle
from service.config import PrecisionChoice
from service.engines.engine import Outputs
from service.engines.precision import choose
from service.engines.runtime import CUDA, Usable, open_session, require_on_cuda
from service.engines.slots import Slot

_SLOTS = 2
_WARMING_RUNS = 3  # with graphs, the first ones allocate and only then one is captured


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """`batch_sizes` ascending. `memory_bytes` limits a model's weights and intermediate results; 0 is no limit.

    `graphs`: replay each batch size as one CUDA graph instead of launching its kernels one by one. While a graph is
    captured no other thread may use the device, so no model can be loaded while another one serves.
    """

    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    memory_bytes: int = 0
    tf32: bool = False
    graphs: bool = False


def batch_sizes_up_to(largest: int) -> tuple[int, ...]:
    """Powers of two below `largest`, and `largest`: less than half of a batch is padding."""
    return (*(2**power for power in range((largest - 1).bit_length())), largest)


def size_for(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `rows`. Raises `ValueError` where none does."""
    index = bisect.bisect_left(sizes, rows)
    if index == len(sizes):
        raise ValueError(f"{rows} rows in one batch, more than the largest of {sizes[-1]}")
    return sizes[index]


def provider_options(options: CudaOptions) -> dict[str, str]:
    """For ONNX Runtime's CUDA execution provider."""
    limit = {"gpu_mem_limit": str(options.memory_bytes)} if options.memory_bytes else {}
    return {
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search takes seconds for every batch size
        "arena_extend_strategy": "kSameAsRequested",  # sizes are known, so powers of two would waste memory
        "use_tf32": str(int(options.tf32)),
        "enable_cuda_graph": str(int(options.graphs)),
        **limit,
    }


class CudaEngine:
    """The constructor runs every batch size in every slot, so that no request pays for a first run.

    Raises `DeviceUnavailable`, and `ValueError` on a model whose rows have no fixed shape.
    """

    def __init__(
        self, model: bytes, options: CudaOptions, device: Usable = "cuda", precision: Precision = "fp32"
    ) -> None:
        self._session: Any = open_session(model, provider_options(options) if device == "cuda" else None)
        if device == "cuda":
            require_on_cuda(self._session)
        self.provider: str = self._session.get_providers()[0]
        self.precision: Precision = precision
        self.batch_sizes = options.batch_sizes
        # A captured graph belongs to the thread that captured it, so with graphs one thread runs everything.
        self._runner = ThreadPoolExecutor(1, "device") if options.graphs else None
        slots = [Slot(self._session, device, options.batch_sizes, options.graphs, number) for number in range(_SLOTS)]
        self._warm(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)

    def run(self, parts: Sequence[Pixels], evidence: bool = False) -> Outputs:
        rows = sum(len(part) for part in parts)
        size = size_for(rows, self.batch_sizes)
        slot = self._free.get()
        try:
            slot.fill(parts, size)
            arrays = self._execute(slot, size, evidence)
        finally:
            self._free.put(slot)
        return Outputs(*(array[:rows] for array in arrays))

    def close(self) -> None:
        while not self._free.empty():
            self._free.get()
        self._session = None
        if self._runner is not None:
            self._runner.shutdown()

    def _execute(self, slot: Slot, size: int, evidence: bool) -> list[Any]:
        if self._runner is not None:
            return self._runner.submit(slot.run, self._session, size, evidence).result()
        return slot.run(self._session, size, evidence)

    def _warm(self, slots: list[Slot]) -> None:
        """Run the slots at the same time: parallel runs need a stream and workspace each."""
        with ThreadPoolExecutor(_SLOTS, "warming") as pool:
            for size in self.batch_sizes:
                for _ in range(_WARMING_RUNS):
                    list(pool.map(self._execute, slots, [size] * _SLOTS, [False] * _SLOTS))


def open_on_cuda(bundle: Bundle, options: CudaOptions, precision: PrecisionChoice = "fp32") -> CudaEngine:
    """An `OpenEngine` once the rest is bound. TF32 is on only where the manifest has a tolerance for it."""
    chosen = choose(bundle, precision, CUDA)
    model = bundle.read(bundle.manifest.file_of(chosen))
    return CudaEngine(model, dataclasses.replace(options, tf32=chosen == TF32), precision=chosen)
