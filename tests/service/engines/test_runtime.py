"""Sessions run where they were asked to, or it is said that they do not."""

import os
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bundle.precision import multiplies_bytes
from service.engines import runtime
from service.engines.runtime import (
    CPU,
    CUDA,
    check_runtime,
    nodes_by_provider,
    open_session,
    require_on_cuda,
    usable_device,
)
from service.errors import DeviceUnavailable, RuntimeConflict, RuntimeMissing

HAS_CUDA = CUDA in onnxruntime.get_available_providers()


class FakeRuntime:
    """An ONNX Runtime that offers `available` and whose sessions really run on `actual`."""

    def __init__(self, available: list[str], actual: str, error: Exception | None = None) -> None:
        self.available, self.actual, self.error = available, actual, error
        self.preloaded = 0
        self.options: Any = None
        self.asked: list[Any] = []
        self.more: dict[str, Any] = {}

    def get_available_providers(self) -> list[str]:
        return self.available

    def preload_dlls(self, directory: str) -> None:
        assert directory == ""
        self.preloaded += 1
        print("Failed to load libcublas.so.13")  # noqa: T201 - as it does

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802 - the runtime's name
        entries: dict[str, str] = {}
        self.options = SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)
        return self.options

    def InferenceSession(self, model: bytes, options: Any, providers: list[Any], **more: Any) -> "FakeRuntime":  # noqa: N802
        if self.error is not None:
            raise self.error
        self.asked, self.more = providers, more
        return self

    def get_providers(self) -> list[str]:
        return [self.actual, CPU]


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch):
    """Stands in for ONNX Runtime with the GPU's providers, which the machine may not have."""

    def install(available: list[str], actual: str, error: Exception | None = None) -> FakeRuntime:
        fake = FakeRuntime(available, actual, error)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    runtime._load_cuda_libraries.cache_clear()
    yield install
    runtime._load_cuda_libraries.cache_clear()


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


def test_the_runtime_does_not_report_to_its_maker() -> None:
    runtime.load_runtime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


# The device


def test_the_cpu_is_not_even_looked_for(fake_runtime) -> None:
    fake = fake_runtime([CUDA, CPU], CUDA)
    assert usable_device("cpu") == "cpu"
    assert fake.options is None


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_is_taken_where_there_is_one(fake_runtime, device) -> None:
    fake_runtime([CUDA, CPU], CUDA)
    assert usable_device(device) == "cuda"


@pytest.mark.parametrize("available", [[CPU], [CUDA, CPU]])
def test_cuda_refuses_where_sessions_run_on_the_cpu(fake_runtime, available: list[str]) -> None:
    """ONNX Runtime has no CUDA; or offers it, finds no driver, and runs on the CPU without a word."""
    fake_runtime(available, CPU)
    with pytest.raises(DeviceUnavailable) as refusal:
        usable_device("cuda")
    assert refusal.value.facts == {"device": "cuda", "found": CPU}
    assert "use --device auto or cpu" in str(refusal.value)


@pytest.mark.parametrize(("available", "said"), [([CPU], False), ([CUDA, CPU], True)])
def test_auto_falls_back_and_says_so_where_a_gpu_was_meant(fake_runtime, caplog, available: list[str], said) -> None:
    fake_runtime(available, CPU)
    assert usable_device("auto") == "cpu"
    assert (f"models run on the CPU: CUDA was tried, but the session runs on {CPU}" in caplog.text) is said


def test_a_driver_without_a_device_is_no_gpu_either(fake_runtime, caplog) -> None:
    error = RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
    fake_runtime([CUDA, CPU], CUDA, error)
    assert usable_device("auto") == "cpu"
    assert "no CUDA-capable device is detected" in caplog.text
    with pytest.raises(DeviceUnavailable, match="no CUDA-capable device") as refusal:
        usable_device("cuda")
    assert refusal.value.__cause__ is error


def test_a_missing_runtime_is_no_missing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError):
        usable_device("auto")


@pytest.mark.skipif(HAS_CUDA, reason="there is a GPU runtime")
def test_the_installed_runtime_gives_the_cpu() -> None:
    assert usable_device("auto") == "cpu"
    with pytest.raises(DeviceUnavailable):
        usable_device("cuda")


def test_the_probe_is_one_identity() -> None:
    value = {"elem_type": TensorProto.FLOAT, "shape": [1]}
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", **value)],
        [helper.make_tensor_value_info("y", **value)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert onnx.ModelProto.FromString(runtime._PROBE) == model
    assert open_session(runtime._PROBE).get_providers() == [CPU]


# Sessions


def test_a_session_computes_on_its_callers_thread_and_falls_back_to_nothing(fake_runtime) -> None:
    fake = fake_runtime([CUDA, CPU], CPU)
    open_session(b"")
    assert (fake.options.intra_op_num_threads, fake.options.inter_op_num_threads) == (1, 1)
    assert fake.options.entries == ({} if multiplies_bytes() else {"session.x64quantprecision": "1"})
    assert fake.asked == [CPU]
    assert fake.more == {"enable_fallback": 0}
    assert not fake.preloaded


def test_a_session_on_cuda_gets_its_options(fake_runtime) -> None:
    fake = fake_runtime([CUDA, CPU], CUDA)
    open_session(b"", {"use_tf32": "0"})
    assert fake.asked == [(CUDA, {"use_tf32": "0"}), CPU]
    assert fake.more == {"enable_fallback": 0}
    assert fake.options.entries["session.record_ep_graph_assignment_info"] == "1"


def test_the_cuda_libraries_are_loaded_once_and_standard_output_stays_the_banners(fake_runtime, capfd) -> None:
    fake = fake_runtime([CUDA, CPU], CUDA)
    open_session(b"", {})
    open_session(b"", {})
    assert fake.preloaded == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "Failed to load libcublas" in err


# Where the nodes are


class Assigned:
    """A session whose nodes are assigned to providers, in the runtime's words."""

    def __init__(self, **nodes: int) -> None:
        self._parts = [SimpleNamespace(ep_name=name, get_nodes=partial(list, range(n))) for name, n in nodes.items()]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return self._parts


def test_the_installed_runtime_tells_where_its_nodes_are() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(runtime._PROBE, options, providers=[CPU])
    assert nodes_by_provider(session) == {CPU: 1}


def test_a_model_that_is_all_on_cuda_is_no_news(caplog) -> None:
    require_on_cuda(Assigned(**{CUDA: 50}))
    assert caplog.text == ""


def test_a_few_nodes_elsewhere_are_told(caplog) -> None:
    require_on_cuda(Assigned(**{CUDA: 48, CPU: 2}))
    assert f"2 of 50 nodes of the model do not run on CUDA: {{'{CPU}': 2}}" in caplog.text


def test_a_model_of_which_nothing_is_on_cuda_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match=f"the session runs on {CPU}"):
        require_on_cuda(Assigned(**{CPU: 50}))
