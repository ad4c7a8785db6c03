"""Each device has its scheduler and engines, and with either a picture gets its class."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import gpu
from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service.assembly import opener, scheduler
from service.config import Settings
from service.core.classifier import Classifier
from service.core.requests import ImageRequest, PixelsRequest
from service.engines.cuda import CudaEngine, CudaOptions, open_on_cuda
from service.engines.engine import open_on_cpu
from service.engines.runtime import CUDA, load_runtime
from service.metrics import Metrics
from service.scheduling.batcher import Batcher
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.system.cores import usable_cores
from service.versions.registry import Registry


@contextlib.contextmanager
def started(*arguments: Any) -> Iterator[Any]:
    made = scheduler(*arguments)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("setting", "count"), [(0, usable_cores()), (3, 3)])
def test_a_cpu_has_lanes(setting: int, count: int) -> None:
    found = opener(Settings(precision="auto"), "cpu")
    assert isinstance(found, partial)
    assert (found.func, found.keywords) == (open_on_cpu, {"precision": "auto"})
    with started(Settings(lanes=setting), "cpu") as lanes:
        assert isinstance(lanes, Lanes)
        assert lanes.count == count


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slow_images_go_to_processes_of_their_own_unless_switched_off(device: Any) -> None:
    with started(Settings(), device) as ours, started(Settings(slow_ms=0), device) as without:
        options = ours._slow._options
        assert (options.threshold_s, options.count) == (0.05, usable_cores())
        assert options.bounds == Bounds(Settings().queue_limit, Settings().queue_bytes)
        assert without._slow._options is None


@pytest.mark.parametrize(("setting", "count"), [(0, usable_cores()), (3, 3)])
def test_a_gpu_has_decoders_and_batches(setting: int, count: int) -> None:
    with started(Settings(decoders=setting), "cuda") as batcher:
        assert isinstance(batcher, Batcher)
        assert batcher.decoders == count


def test_a_gpus_engines_get_the_batch_sizes_and_the_limit_that_were_set() -> None:
    found = opener(Settings(max_batch=6, gpu_memory_bytes=2**30), "cuda")
    assert isinstance(found, partial)
    assert found.func is open_on_cuda
    assert found.keywords == {"options": CudaOptions((1, 2, 4, 6), 2**30), "precision": "fp32"}


def test_the_whole_way_with_batches(models: Path, pictures, eventually) -> None:
    """Loaded and proven at every batch size, classified in batches, and counted: the GPU's code, on the CPU."""

    def open_bound(bundle: Bundle) -> CudaEngine:
        return CudaEngine(bundle.read(bundle.manifest.model.file), CudaOptions((1, 2, 4)), "cpu")

    metrics = Metrics()
    registry = Registry(Repository(models), open_bound, on_change=metrics.changed)
    registry.load_all()

    async def ask(batcher: Batcher) -> None:
        classifier, model = Classifier(registry, batcher, Limits()), registry.find()
        labels = [*pictures] * 10
        requests = [ImageRequest(pictures[label]) for label in labels]
        answers = await asyncio.gather(*(classifier.classify(model, request) for request in requests))
        assert [answer.predictions[0].label for answer in answers] == labels
        assert all(min(answer.timings.queue, answer.timings.inference) > 0 for answer in answers)
        pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
        batch = await classifier.infer(model, PixelsRequest(pixels, evidence=True))
        for row, found in zip(pixels, batch.outputs.logits, strict=True):
            np.testing.assert_allclose(found, model.engine.run((row[np.newaxis],)).logits[0], atol=1e-5)

    with started(Settings(decoders=2, max_batch=4), "cuda", metrics.batch) as batcher:
        asyncio.run(ask(batcher))
    labels = {"model": "flowers", "version": "1"}
    rows = metrics.registry.get_sample_value("anther_batch_size_sum", labels)
    batches = metrics.registry.get_sample_value("anther_batch_size_count", labels)
    assert rows == 30 + 11
    assert batches is not None
    assert 11 <= batches <= 33
    registry.close()


def test_a_cpus_models_have_no_batches_to_count(models: Path) -> None:
    metrics = Metrics()
    registry = Registry(Repository(models), open_on_cpu, on_change=metrics.changed)
    registry.load_all()
    metrics.batch(registry.find().engine, 1)
    assert metrics.registry.get_sample_value("anther_batch_size_count", {"model": "flowers", "version": "1"}) is None
    registry.close()


@pytest.mark.skipif(CUDA in load_runtime().get_available_providers(), reason="there is a GPU runtime")
def test_the_benchmark_for_a_gpu_says_that_there_is_none() -> None:
    result = CliRunner().invoke(gpu.main)
    assert result.exit_code == 1
    assert "this benchmark takes a GPU: " in str(result.output)
