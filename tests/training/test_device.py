import pytest
import torch

from training import device
from training.config import Machine, Recipe
from training.errors import DeviceUnavailable
from training.progress import Silent

CUDA = torch.cuda.is_available()


@pytest.mark.skipif(CUDA, reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(DeviceUnavailable, match="no CUDA device; use --device auto"):
        device.choose(Machine("cuda"))
    assert device.choose(Machine("auto")).type == "cpu"


@pytest.mark.skipif(not CUDA, reason="this machine has no CUDA")
def test_auto_takes_cuda_where_there_is_one():
    assert device.choose(Machine("auto")).type == device.choose(Machine("cuda")).type == "cuda"
    assert device.choose(Machine("cpu")).type == "cpu"
    assert device.arithmetic(Recipe(), torch.device("cuda")) in {torch.bfloat16, torch.float16}


def test_named_arithmetic_is_taken_as_it_is():
    cpu = torch.device("cpu")
    assert device.arithmetic(Recipe(precision="fp32"), cpu) is torch.float32
    assert device.arithmetic(Recipe(precision="fp16"), cpu) is torch.float16
    assert device.arithmetic(Recipe(), cpu) in {torch.float32, torch.bfloat16}


def test_there_is_a_worker_a_core_unless_told_otherwise():
    assert device.workers(Machine(workers=3)) == 3
    assert device.workers(Machine(workers=0)) == 0
    assert 1 <= device.workers(Machine()) <= 16


class Said(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_compiling_on_a_cpu_needs_a_compiler_and_is_said_to_be_left_out_without_one(monkeypatch):
    reporter = Said()
    model = torch.nn.Linear(1, 1)
    cpu = torch.device("cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert device.compiled(model, Recipe(compile=True), cpu, reporter) is model
    assert len(reporter.lines) == 1
    assert "needs a C++ compiler" in reporter.lines[0]
    assert device.compiled(model, Recipe(), cpu, reporter) is model
    assert len(reporter.lines) == 1


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch, at the import of its compiler
def test_a_compiled_network_trains_the_very_weights_of_the_model():
    """Nothing is compiled before the first batch, so this needs no CUDA and no compiler; names stay plain."""
    model = torch.nn.Linear(1, 1)
    network = device.compiled(model, Recipe(compile=True), torch.device("cuda"), Silent())
    assert network is not model
    assert [id(part) for part in network.parameters()] == [id(part) for part in model.parameters()]
    assert list(model.state_dict()) == ["weight", "bias"]
