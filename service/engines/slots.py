"""The memory of one batch: its rows on the host, and rows and outputs for every batch size on the device.

Pixels cross the bus as uint8 from page-locked memory. Addresses never change, as CUDA graphs require.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.preprocessing import Pixels
from service.engines.pinned import cuda_runtime, page_locked
from service.engines.runtime import Usable, load_runtime

_OUTPUTS, _EVIDENCE = ("probabilities", "logits"), "evidence"
_NO_GRAPH = -1


@dataclass(frozen=True, slots=True)
class _Bound:
    """Buffers of one batch size. The pairs are for runs without and with evidence."""

    pixels: Any  # on the device
    bindings: tuple[Any, Any]  # the second is None for a model without evidence
    run_options: tuple[Any, Any]  # None: the session's own


class Slot:
    """For one thread at a time. Raises `ValueError` for a model whose rows have no fixed shape.

    With `graphs`, each batch size is captured as a CUDA graph of its own; runs with evidence, which are rare, are not.
    """

    def __init__(self, session: Any, device: Usable, sizes: Sequence[int], graphs: bool, number: int) -> None:
        self._rows, free = _host_rows((sizes[-1], *_row_shape(session.get_inputs()[0])), device)
        weakref.finalize(self, free).atexit = False
        self._bound = {
            size: _bound(session, device, size, number * (sizes[-1] + 1) + size if graphs else _NO_GRAPH)
            for size in sizes
        }

    def fill(self, parts: Sequence[Pixels], size: int) -> None:
        """Copy the parts to the device. Rows beyond them keep an earlier batch; their results are not used."""
        start = 0
        for part in parts:
            self._rows[start : start + len(part)] = part
            start += len(part)
        self._bound[size].pixels.update_inplace(self._rows[:size])

    def run(self, session: Any, size: int, evidence: bool) -> list[Any]:
        """The outputs for `size` rows, copied to the host. Raises `ValueError` where the model gives no evidence."""
        bound = self._bound[size]
        if (binding := bound.bindings[evidence]) is None:
            raise ValueError("the model gives no evidence")
        session.run_with_iobinding(binding, bound.run_options[evidence])
        arrays: list[Any] = binding.copy_outputs_to_cpu()
        return arrays


def _host_rows(shape: tuple[int, ...], device: Usable) -> tuple[Pixels, Callable[[], None]]:
    cudart = cuda_runtime(load_runtime().cuda_version) if device == "cuda" else None
    return page_locked(shape, cudart) if cudart is not None else (np.zeros(shape, np.uint8), lambda: None)


def _bound(session: Any, device: Usable, size: int, graph: int) -> _Bound:
    def value(declared: Any, kind: Any) -> Any:
        shape = (size, *_row_shape(declared))
        return load_runtime().OrtValue.ortvalue_from_shape_and_type(shape, kind, device)

    pixels = value(session.get_inputs()[0], np.uint8)
    outputs = {output.name: value(output, np.float32) for output in session.get_outputs()}
    plain = _binding(session, pixels, {name: outputs[name] for name in _OUTPUTS})
    full = {name: outputs[name] for name in (*_OUTPUTS, _EVIDENCE)} if _EVIDENCE in outputs else None
    return _Bound(
        pixels,
        (plain, None if full is None else _binding(session, pixels, full)),
        (_run_options(graph), _run_options(_NO_GRAPH)),
    )


def _binding(session: Any, pixels: Any, outputs: dict[str, Any]) -> Any:
    binding = session.io_binding()
    binding.bind_ortvalue_input("pixels", pixels)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _run_options(graph: int) -> Any:
    """Options that make CUDA replay a graph, or capture it first; providers without graphs ignore them."""
    options = load_runtime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def _row_shape(declared: Any) -> tuple[int, ...]:
    """The shape without its first dimension, the batch."""
    row = declared.shape[1:]
    if not all(isinstance(side, int) for side in row):
        raise ValueError(f"'{declared.name}' is declared as {declared.shape}; only the batch may be left open on a GPU")
    return tuple(row)
