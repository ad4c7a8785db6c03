"""The engine runs where it says it runs, and gives each row the answer that it would have alone."""

import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.repository import Repository
from service.engine import CPU, CUDA, OnnxEngine, check_runtime
from service.errors import DeviceUnavailable, RuntimeConflict, RuntimeMissing

CROP = 32
HAS_CUDA = CUDA in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def model(models: Path) -> bytes:
    return Repository(models).open("flowers").read("model.onnx")


class FakeRuntime:
    """An ONNX Runtime that offers `available` and whose sessions really run on `actual`."""

    def __init__(self, available: list[str], actual: str) -> None:
        self.available, self.actual = available, actual
        self.preloaded = self.fallback_disabled = False
        self.options: Any = None
        self.asked: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def preload_dlls(self, directory: str) -> None:
        self.preloaded = True

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802 - the runtime's name
        self.options = SimpleNamespace()
        return self.options

    def InferenceSession(self, model: bytes, options: Any, providers: list[Any]) -> "FakeRuntime":  # noqa: N802
        self.asked = providers
        return self

    def get_providers(self) -> list[str]:
        return [self.actual, CPU]

    def disable_fallback(self) -> None:
        self.fallback_disabled = True


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch):
    """Stands in for ONNX Runtime with the GPU's providers, which this machine may not have."""

    def install(available: list[str], actual: str) -> FakeRuntime:
        runtime = FakeRuntime(available, actual)
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        return runtime

    return install


# One runtime


def test_one_runtime_is_right() -> None:
    check_runtime(["onnxruntime"])
    check_runtime(["onnxruntime-gpu"])


def test_the_installed_runtime_is_found() -> None:
    check_runtime()


def test_no_runtime_is_refused_with_what_to_install() -> None:
    with pytest.raises(RuntimeMissing, match=r"pip install 'anther\[cpu\]'"):
        check_runtime([])


def test_two_runtimes_are_refused_because_they_overwrite_each_other() -> None:
    with pytest.raises(RuntimeConflict, match="onnxruntime and onnxruntime-gpu are installed together") as refusal:
        check_runtime(["onnxruntime", "onnxruntime-gpu"])
    assert "pip uninstall onnxruntime onnxruntime-gpu" in str(refusal.value)


# Devices


def test_cpu_is_the_cpu(model: bytes) -> None:
    assert OnnxEngine(model, "cpu").provider == CPU


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU runtime")
def test_cuda_refuses_where_the_runtime_has_none(model: bytes) -> None:
    with pytest.raises(DeviceUnavailable) as refusal:
        OnnxEngine(model, "cuda")
    assert refusal.value.facts == {"device": "cuda", "found": CPU}
    assert "use --device auto or cpu" in str(refusal.value)


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU runtime")
def test_auto_takes_the_cpu_where_there_is_nothing_else(model: bytes) -> None:
    assert OnnxEngine(model, "auto").provider == CPU


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_is_taken_where_there_is_one(fake_runtime, device) -> None:
    runtime = fake_runtime([CUDA, CPU], CUDA)
    assert OnnxEngine(b"", device).provider == CUDA
    assert runtime.preloaded
    assert runtime.fallback_disabled
    (name, options), fallback = runtime.asked
    assert (name, fallback) == (CUDA, CPU)
    assert options["use_tf32"] == "0"  # its mantissas of 10 bits would pass as skew


def test_cuda_refuses_a_session_that_fell_back_silently(fake_runtime) -> None:
    """ONNX Runtime offers CUDA, finds no driver, and runs on the CPU without a word."""
    fake_runtime([CUDA, CPU], CPU)
    with pytest.raises(DeviceUnavailable, match="the session runs on CPUExecutionProvider"):
        OnnxEngine(b"", "cuda")


def test_auto_says_so_when_its_session_fell_back(fake_runtime) -> None:
    fake_runtime([CUDA, CPU], CPU)
    assert OnnxEngine(b"", "auto").provider == CPU


def test_cpu_never_asks_for_the_gpu(fake_runtime) -> None:
    runtime = fake_runtime([CUDA, CPU], CPU)
    assert OnnxEngine(b"", "cpu").provider == CPU
    assert runtime.asked == [CPU]
    assert not runtime.preloaded


def test_a_session_computes_on_its_callers_thread_alone(fake_runtime) -> None:
    runtime = fake_runtime([CPU], CPU)
    OnnxEngine(b"", "cpu")
    assert (runtime.options.intra_op_num_threads, runtime.options.inter_op_num_threads) == (1, 1)


# Rows


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_a_row_of_a_batch_equals_the_same_picture_alone(model, count, seed) -> None:
    engine = OnnxEngine(model, "cpu")
    pixels = np.random.default_rng(seed).integers(0, 256, (count, CROP, CROP, 3), np.uint8)
    probabilities, logits = engine.run(pixels)
    assert probabilities.shape == logits.shape == (count, 3)
    assert probabilities.dtype == logits.dtype == np.float32
    for row in range(count):
        alone_probabilities, alone_logits = engine.run(pixels[row : row + 1])
        np.testing.assert_allclose(logits[row], alone_logits[0], atol=1e-5)
        np.testing.assert_allclose(probabilities[row], alone_probabilities[0], atol=1e-6)


def test_a_closed_engine_gives_its_session_back(model: bytes) -> None:
    engine = OnnxEngine(model, "cpu")
    session = weakref.ref(engine._session)
    engine.close()
    assert session() is None
