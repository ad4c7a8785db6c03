"""Device, arithmetic and worker count of a machine. A device that is missing is an error, never replaced by another."""

import os
import shutil

import torch
from torch import nn

from training.config import Machine, Recipe
from training.errors import DeviceUnavailable
from training.progress import Reporter


def choose(machine: Machine) -> torch.device:
    """The requested device; `auto` takes CUDA where there is one. Raises `DeviceUnavailable`."""
    available = torch.cuda.is_available()
    if machine.device == "cuda" and not available:
        raise DeviceUnavailable("cuda", "torch finds no CUDA device")
    return torch.device("cuda" if available and machine.device != "cpu" else "cpu")


def arithmetic(recipe: Recipe, device: torch.device) -> torch.dtype:
    """Type of the products inside convolutions while training; weights stay float32."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if recipe.precision != "auto":
        return named[recipe.precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    abilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if abilities.get("avx512_bf16") or abilities.get("amx_bf16") else torch.float32


def workers(machine: Machine) -> int:
    """Processes that feed the device; more than 16 only contend."""
    return min(len(os.sched_getaffinity(0)), 16) if machine.workers is None else machine.workers


def compiled(model: nn.Module, recipe: Recipe, device: torch.device, reporter: Reporter) -> nn.Module:
    """The module that trains `model`: itself or, with `recipe.compile`, its compiled form with the same weights.

    On a CPU torch compiles to C++. Without a C++ compiler the model is not compiled, and a message says so: the same
    recipe must train on any machine.
    """
    if not recipe.compile:
        return model
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        reporter.say("not compiled: on a CPU --compile needs a C++ compiler, g++ or the one named by CXX")
        return model
    # Named, since otherwise kernels that were compiled for fewer threads would be taken from torch's cache as they are.
    network = torch.compile(model, options={"cpp.threads": torch.get_num_threads()})
    assert isinstance(network, nn.Module)  # a module gives a module
    return network
