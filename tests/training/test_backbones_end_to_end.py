"""Every backbone goes the whole way by the same code: photos → training → bundle → the service's engine → Explain."""

import asyncio
import math

import numpy as np
import onnx
import pytest

from bundle.preprocessing import Limits
from bundle.repository import Repository
from service.core.answers import Explanation
from service.core.classifier import Classifier
from service.core.requests import ImageRequest
from service.engines.engine import open_on_cpu
from service.scheduling.fair_queue import Bounds
from service.scheduling.lanes import Lanes
from service.versions.registry import Registry
from tests.training import published
from training import pipeline
from training.config import Machine
from training.exporting.bundling import ExportOptions
from training.networks.backbones import BACKBONES
from training.progress import Silent
from training.runs.records import TrainingRequest

SIDE = 64  # px; alexnet needs 63
LIKE_ANOTHER = {"mobilenet_v3_large", "resnet50", "vgg16", "alexnet"}  # made of the same layers; int8 of one is enough
ELSEWHERE = {"mobilenet_v2", "small_cnn"}  # their int8 is trained, exported and served in tests/e2e
OPTIONS = {name: ExportOptions(int8=name not in LIKE_ANOTHER | ELSEWHERE) for name in BACKBONES}
MAPS = {"small_cnn": (8, 8), "mlp": (1, 1), "alexnet": (1, 1)}  # the others halve a photo five times


@pytest.fixture
def weights_of(tmp_path):
    """`weights_of(name)`: a published file of that backbone, where there is one."""

    def find(name: str) -> str:
        if BACKBONES[name].weights_url is None:
            return "none"
        return str(published.write(published.network(name), tmp_path / f"{name}.pth"))

    return find


@pytest.fixture
def explained(tmp_path):
    """`explained(photo)`: the answer of a service on what was published below `tmp_path`."""

    def ask(photo: bytes) -> Explanation:
        registry, lanes = Registry(Repository(tmp_path / "models"), open_on_cpu), Lanes(1, Bounds(8, 2**20))
        registry.load_all()
        try:
            return asyncio.run(Classifier(registry, lanes, Limits()).explain(registry.find(), ImageRequest(photo)))
        finally:
            lanes.close()
            registry.close()

    return ask


@pytest.mark.no_cover  # tracing doubles the time; other tests cover the same lines
@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_trains_exports_serves_and_explains(backbone, weights_of, photos, recipe, tmp_path, explained) -> None:
    sizes = {"resize": SIDE, "crop": SIDE, "train_size": BACKBONES[backbone].smallest, "batch_size": 16}
    wanted = recipe(strategy="finetune", backbone=backbone, epochs=1, clip_norm=1.0, **sizes)
    request = TrainingRequest(photos, "colours", weights_of(backbone), tmp_path / "runs")
    run = pipeline.train(request, wanted, Machine("cpu", 0), Silent())
    assert [math.isfinite(row["train_loss"]) for row in run.rows("curves.jsonl") if row["epoch"] == 1] == [True]

    exported = pipeline.export(run, None, Machine("cpu", 1), Silent(), OPTIONS[backbone])
    bundle = pipeline.publish(exported, tmp_path / "models")
    assert bundle.manifest.model.architecture == backbone
    operations = {node.op_type for node in onnx.load_from_string(bundle.read("model.onnx")).graph.node}
    assert operations.isdisjoint({"BatchNormalization", "Shape", "Gather"})  # folded, and nothing depends on the batch
    photo = next((photos / "red").iterdir()).read_bytes()
    found = explained(photo)
    assert found.evidence.shape == MAPS.get(backbone, (2, 2))
    bias = float(run.weights()["head.bias"][found.explained.index])
    assert found.logit == pytest.approx(float(found.evidence.mean()) + bias, abs=1e-4)
    assert np.ptp(found.outputs.logits) > 0.01  # it has something to tell apart
