"""What only a GPU can show: sessions on CUDA, rows as on the CPU, memory really locked, graphs that change nothing."""

import asyncio
import ctypes
from pathlib import Path

import numpy as np
import pytest

from bundle.preprocessing import Limits
from bundle.repository import Bundle, Repository
from service.assembly import opener, scheduler
from service.config import Settings
from service.core.classifier import Classifier
from service.core.requests import ImageRequest
from service.engines.cuda import CudaEngine, CudaOptions, open_on_cuda
from service.engines.engine import open_on_cpu
from service.engines.pinned import cuda_runtime
from service.engines.runtime import CUDA, load_runtime, usable_device
from service.versions.registry import Registry

pytestmark = pytest.mark.skipif(usable_device("auto") != "cuda", reason="there is no GPU")

SIZES = (1, 2, 4, 8)
TOLERANCE = 1e-2  # of a logit, as the manifest allows on CUDA


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, publish_bundle) -> Path:
    root = tmp_path_factory.mktemp("models")
    publish_bundle(root)
    return root


@pytest.fixture(scope="module")
def bundle(models: Path) -> Bundle:
    return Repository(models).open("flowers")


@pytest.fixture(scope="module", params=[False, True], ids=["launched", "graphs"])
def engine(bundle: Bundle, request: pytest.FixtureRequest) -> CudaEngine:
    return open_on_cuda(bundle, CudaOptions(SIZES, graphs=request.param))


@pytest.mark.parametrize("rows", range(1, 9))
def test_rows_are_as_on_the_cpu_however_full_the_batch(engine: CudaEngine, bundle: Bundle, rows: int) -> None:
    expected = open_on_cpu(bundle)
    assert engine.provider == CUDA
    for seed in range(3):  # the second run of a graph is a replay
        pixels = np.random.default_rng(seed).integers(0, 256, (rows, 32, 32, 3), np.uint8)
        found = engine.run((pixels,), evidence=seed == 0)
        np.testing.assert_allclose(found.logits, expected.run((pixels,)).logits, atol=TOLERANCE)
        if found.evidence is not None:
            np.testing.assert_allclose(found.evidence, expected.run((pixels,), True).evidence, atol=TOLERANCE)


def test_the_rows_of_a_slot_are_page_locked(bundle: Bundle) -> None:
    engine = open_on_cuda(bundle, CudaOptions(SIZES))
    cudart, flags = cuda_runtime(load_runtime().cuda_version), ctypes.c_uint()
    address = ctypes.c_void_p(engine._free.get()._rows.ctypes.data)
    assert cudart.cudaHostGetFlags(ctypes.byref(flags), address) == 0


def test_a_model_is_proven_and_answers_in_batches(models: Path, make_picture) -> None:
    settings = Settings(device="cuda", max_batch=8)
    registry = Registry(Repository(models), opener(settings, "cuda"))
    registry.load_all()
    assert registry.find().engine.provider == CUDA
    assert registry.find().golden_difference <= TOLERANCE
    rows: list[int] = []
    batcher = scheduler(settings, "cuda", lambda _, count: rows.append(count))
    pictures = {
        "daisy": make_picture((255, 0, 0)),
        "tulips": make_picture((0, 255, 0)),
        "roses": make_picture((0, 0, 255)),
    }

    async def ask() -> list[str]:
        classifier, model = Classifier(registry, batcher, Limits()), registry.find()
        requests = [ImageRequest(pictures[label]) for label in [*pictures] * 20]
        answers = await asyncio.gather(*(classifier.classify(model, request) for request in requests))
        return [answer.predictions[0].label for answer in answers]

    assert asyncio.run(ask()) == [*pictures] * 20
    assert sum(rows) == 60
    batcher.close()
    registry.close()
