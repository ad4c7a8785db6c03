"""The engine for a GPU, on the CPU: the same batches, bindings and slots. What needs a device is in tests/gpu."""

import dataclasses
import gc
import queue
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.repository import Bundle, Repository, open_bundle
from service.engines import cuda as cuda_engine
from service.engines import slots
from service.engines.cuda import CudaEngine, CudaOptions, batch_sizes_up_to, open_on_cuda, provider_options, size_for
from service.engines.engine import OnnxEngine
from service.engines.runtime import CPU, CUDA, open_session
from service.errors import DeviceUnavailable
from tests.service.engines.test_pinned import FakeCudart

CROP = 32
SIZES = CudaOptions(batch_sizes=(1, 2, 4))
HAS_CUDA = CUDA in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def bundle(models: Path) -> Bundle:
    return Repository(models).open("flowers")


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> bytes:
    return bundle.read("model.onnx")


@pytest.fixture(scope="module")
def engine(model: bytes) -> CudaEngine:
    return CudaEngine(model, SIZES, "cpu")


def pictures(*counts: int, seed: int = 0) -> list[Any]:
    chance = np.random.default_rng(seed)
    return [chance.integers(0, 256, (count, CROP, CROP, 3), np.uint8) for count in counts]


# Decisions


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (64, (1, 2, 4, 8, 16, 32, 64)), (65, (1, 2, 4, 8, 16, 32, 64, 65))],
)
def test_batch_sizes_are_powers_of_two_and_the_largest(largest: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes_up_to(largest) == sizes


@settings(deadline=None)
@given(largest=st.integers(1, 300), rows=st.integers(1, 300))
def test_rows_go_into_the_smallest_batch_that_holds_them(largest: int, rows: int) -> None:
    sizes = batch_sizes_up_to(largest)
    if rows > largest:
        with pytest.raises(ValueError, match=f"{rows} rows in one batch, more than the largest of {largest}"):
            size_for(rows, sizes)
    else:
        size = size_for(rows, sizes)
        assert size in sizes
        assert rows <= size < 2 * rows or size == largest


def test_a_session_asks_for_quick_starts_exact_products_and_no_more_memory_than_it_needs() -> None:
    assert provider_options(CudaOptions()) == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_cuda_graph": "0",
    }


def test_a_limit_of_memory_tf32_and_graphs_are_asked_for_where_they_are_wanted() -> None:
    options = provider_options(CudaOptions(memory_bytes=2**30, tf32=True, graphs=True))
    assert (options["gpu_mem_limit"], options["use_tf32"], options["enable_cuda_graph"]) == ("1073741824", "1", "1")


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU runtime")
def test_without_a_gpu_it_is_not_made(bundle: Bundle) -> None:
    with pytest.raises(DeviceUnavailable):
        open_on_cuda(bundle, SIZES)


@pytest.mark.parametrize("tf32", [True, False])
def test_the_manifest_decides_about_tf32(
    tmp_path: Path, make_bundle, rewrite_tolerances, monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(cuda_engine, "CudaEngine", lambda *arguments, precision: made.append((*arguments, precision)))
    tolerances = {CPU: {"fp32": 1e-4}, CUDA: {"fp32": 1e-2, **({"tf32": 1e-1} if tf32 else {})}}
    bundle = rewrite_tolerances(make_bundle(tmp_path / "flowers"), tolerances)
    open_on_cuda(bundle, SIZES)
    expected = CudaOptions(batch_sizes=(1, 2, 4), tf32=tf32)
    assert made == [(bundle.read("model.onnx"), expected, "tf32" if tf32 else "fp32")]


@pytest.fixture
def rewrite_tolerances():
    """A bundle that differs from the one in the folder in what its manifest tolerates."""

    def rewrite(folder: Path, tolerances: dict[str, dict[str, float]]) -> Bundle:
        bundle = open_bundle(folder, 1)
        return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, tolerances=tolerances))

    return rewrite


# Rows


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda counts: sum(counts) <= 4),
    seed=st.integers(0, 2**32 - 1),
    evidence=st.booleans(),
)
def test_every_row_equals_the_same_picture_alone(engine, model, counts, seed, evidence) -> None:
    """Whatever fills the batch up, and whatever ran in the slot before."""
    parts = pictures(*counts, seed=seed)
    outputs = engine.run(parts, evidence)
    expected = OnnxEngine(model).run(parts, evidence)
    assert outputs.probabilities.shape == expected.probabilities.shape
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(outputs.probabilities, expected.probabilities, atol=1e-6)
    if evidence:
        np.testing.assert_allclose(outputs.evidence, expected.evidence, atol=1e-5)
    else:
        assert outputs.evidence is None


def test_results_are_not_touched_by_the_next_run(engine: CudaEngine) -> None:
    first, second = pictures(4, 4)
    outputs = engine.run((first,))
    kept = outputs.logits.copy()
    for _ in range(4):
        engine.run((second,))
    np.testing.assert_array_equal(outputs.logits, kept)


def test_callers_from_many_threads_get_their_own_rows(engine: CudaEngine, model: bytes) -> None:
    alone, failures = OnnxEngine(model), queue.SimpleQueue[BaseException]()

    def ask(seed: int) -> None:
        try:
            for parts in ([rows] for rows in pictures(1, 2, 3, 4, 2, 1, seed=seed)):
                np.testing.assert_allclose(engine.run(parts).logits, alone.run(parts).logits, atol=1e-5)
        except BaseException as exc:
            failures.put(exc)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures.empty()


def test_more_rows_than_the_largest_batch_are_refused(engine: CudaEngine) -> None:
    with pytest.raises(ValueError, match="5 rows in one batch, more than the largest of 4"):
        engine.run(pictures(3, 2))


def test_a_failed_run_leaves_its_slot_to_the_next(engine: CudaEngine) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="broadcast"):
            engine.run((np.zeros((1, CROP + 1, CROP, 3), np.uint8),))
    assert engine.run(pictures(1)).logits.shape == (1, 3)


def test_evidence_that_a_model_does_not_give_is_refused(tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path, evidence=False)
    engine = CudaEngine(Repository(tmp_path).open("flowers").read("model.onnx"), SIZES, "cpu")
    with pytest.raises(ValueError, match="the model gives no evidence"):
        engine.run(pictures(1), evidence=True)
    assert engine.run(pictures(1)).evidence is None


def test_a_model_whose_rows_have_no_fixed_shape_is_refused(model: bytes) -> None:
    proto = onnx.ModelProto.FromString(model)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(ValueError, match=r"'pixels' is declared as .*height.*; only the batch may be left open"):
        CudaEngine(proto.SerializeToString(), SIZES, "cpu")


# Made warm, and taken down


class CountingSession:
    """A real session that notes what is run: the number of rows, the thread, and the graph that was asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.runs: list[tuple[int, str, str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._inner.run_with_iobinding(binding, options)
        rows = len(binding.copy_outputs_to_cpu()[0])
        self.runs.append((rows, threading.current_thread().name, options.get_run_config_entry("gpu_graph_id")))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[CountingSession]:
    """Every session that is opened."""
    opened: list[CountingSession] = []

    def open_counting(content: bytes, cuda: Any = None) -> CountingSession:
        opened.append(CountingSession(open_session(content)))
        return opened[-1]

    monkeypatch.setattr(cuda_engine, "open_session", open_counting)
    return opened


def test_every_batch_size_has_run_in_every_slot_before_the_first_request(sessions, model: bytes) -> None:
    engine = CudaEngine(model, SIZES, "cpu")
    (session,) = sessions
    assert {rows for rows, _, _ in session.runs} == {1, 2, 4}
    assert len(session.runs) == 3 * 2 * 3  # sizes, slots, runs of each
    assert {graph for _, _, graph in session.runs} == {"-1"}
    assert engine.run(pictures(3)).logits.shape == (3, 3)
    assert session.runs[-1][0] == 4


def test_with_graphs_one_thread_runs_everything_and_every_slot_and_size_has_its_own(sessions, model: bytes) -> None:
    """A graph belongs to the thread that captured it, and to the addresses that it was captured with."""
    engine = CudaEngine(model, CudaOptions(batch_sizes=(1, 2, 4), graphs=True), "cpu")
    (session,) = sessions
    assert len({thread for _, thread, _ in session.runs}) == 1
    graphs = {graph for _, _, graph in session.runs}
    assert len(graphs) == 3 * 2
    assert not graphs & {"-1", "0"}
    engine.run(pictures(2), evidence=True)
    assert session.runs[-1][2] == "-1"
    expected = OnnxEngine(model).run(pictures(3)).logits
    np.testing.assert_allclose(engine.run(pictures(3)).logits, expected, atol=1e-5)
    engine.close()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("closing", [False, True])
def test_a_retired_engine_gives_everything_back(model: bytes, closing: bool, graphs: bool) -> None:
    engine = CudaEngine(model, CudaOptions(batch_sizes=(1, 2), graphs=graphs), "cpu")
    engine.run(pictures(2))
    session = weakref.ref(engine._session)
    gc.disable()
    try:
        if closing:
            engine.close()
        else:
            del engine
        assert session() is None
    finally:
        gc.enable()


def test_page_locked_memory_is_taken_and_given_back_with_the_slot(model: bytes, monkeypatch) -> None:
    cudart = FakeCudart()
    monkeypatch.setattr(slots, "cuda_runtime", lambda version: cudart)
    rows, free = slots._host_rows((2, CROP, CROP, 3), "cuda")
    assert len(cudart.blocks) == 1
    del rows
    free()
    assert cudart.blocks == {}
    monkeypatch.setattr(slots, "_host_rows", lambda shape, device: slots.page_locked(shape, cudart))
    engine = CudaEngine(model, SIZES, "cpu")
    assert len(cudart.blocks) == 2
    assert engine.run(pictures(4)).logits.shape == (4, 3)
    del engine
    assert cudart.blocks == {}


def test_without_the_librarys_memory_ordinary_memory_does(monkeypatch) -> None:
    monkeypatch.setattr(slots, "cuda_runtime", lambda version: None)
    rows, free = slots._host_rows((2, 3), "cuda")
    assert rows.shape == (2, 3)
    free()
