"""Which of a bundle's models serves: by what is wanted, by what the manifest allows, and by what the processor can."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import BundleRefused, GoldenMismatch
from bundle.repository import Bundle, Repository
from bundle.variant import VariantMetrics
from service.assembly import opener
from service.config import PrecisionChoice, Settings
from service.engines.engine import open_on_cpu
from service.engines.precision import choose, primary_on
from service.engines.runtime import CPU, CUDA
from service.metrics import Metrics
from service.rpc.messages import description
from service.versions import loader
from service.versions.registry import Registry

GOOD = VariantMetrics(30, 0.998, (0.88, 1.0), 0.12, 0.03, 0.99)  # the primary model of the tests has 1.0


@pytest.fixture
def publish(tmp_path: Path, publish_bundle) -> Callable[..., Bundle]:
    def published(int8: VariantMetrics | None = GOOD) -> Bundle:
        publish_bundle(tmp_path, int8=int8)
        return Repository(tmp_path).open("flowers")

    return published


def with_manifest(bundle: Bundle, **fields: object) -> Bundle:
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, **fields))


def with_variant(bundle: Bundle, **fields: object) -> Bundle:
    return with_manifest(bundle, variants=(dataclasses.replace(bundle.manifest.variants[0], **fields),))


def automatic(bundle: Bundle, provider: str = CPU, fast: bool = True) -> str:
    return choose(bundle, "auto", provider, lambda: fast)


def test_auto_takes_the_faster_model_whose_loss_is_allowed(publish) -> None:
    assert automatic(publish()) == "int8"


@pytest.mark.parametrize(("top1", "expected"), [(1.0, "int8"), (0.995, "int8"), (0.9949, "fp32"), (0.5, "fp32")])
def test_auto_gives_away_no_more_accuracy_than_the_manifest_allows(publish, top1: float, expected: str) -> None:
    """Half a point here; a loss of exactly that is allowed."""
    assert automatic(publish(dataclasses.replace(GOOD, top1=top1))) == expected


def test_auto_takes_no_model_that_is_slower(publish) -> None:
    assert automatic(with_variant(publish(), speedup=0.9)) == "fp32"


def test_auto_takes_none_without_a_tolerance_to_prove_it_by(publish) -> None:
    assert automatic(with_manifest(publish(), tolerances={CPU: {"fp32": 1e-4}})) == "fp32"


def test_auto_stays_with_the_primary_model_on_a_processor_that_multiplies_no_bytes(publish) -> None:
    assert automatic(publish(), fast=False) == "fp32"


def test_auto_stays_with_the_primary_model_on_a_gpu(publish) -> None:
    assert automatic(publish(), CUDA) == "fp32"


def test_auto_and_fp32_take_the_primary_model_where_there_is_no_other(publish) -> None:
    bundle = publish(None)
    assert automatic(bundle) == choose(bundle, "fp32", CPU) == "fp32"
    half = with_manifest(bundle, model=dataclasses.replace(bundle.manifest.model, precision="fp16"))
    assert automatic(half) == choose(half, "fp32", CPU) == "fp16"


def test_int8_is_taken_when_asked_for_however_much_it_loses(publish) -> None:
    bundle = publish(dataclasses.replace(GOOD, top1=0.5))
    assert choose(bundle, "int8", CPU, lambda: False) == "int8"


def test_int8_is_refused_on_a_gpu(publish) -> None:
    with pytest.raises(BundleRefused, match="its int8 model is not meant for CUDAExecutionProvider; serve with"):
        choose(publish(), "int8", CUDA)


@pytest.mark.parametrize(
    ("own", "tolerances", "provider", "expected"),
    [
        ("fp32", {}, CUDA, "fp32"),
        ("fp32", {CUDA: {"fp32": 1e-2}}, CUDA, "fp32"),
        ("fp32", {CUDA: {"fp32": 1e-2, "tf32": 1e-1}}, CUDA, "tf32"),
        ("fp32", {CUDA: {"tf32": 1e-1}}, CUDA, "tf32"),
        ("fp32", {CUDA: {"fp32": 1e-2, "tf32": 1e-1}}, CPU, "fp32"),
        ("fp16", {CUDA: {"fp16": 1e-1, "tf32": 1e-1}}, CUDA, "fp16"),
    ],
)
def test_tf32_is_used_on_cuda_where_the_manifest_has_a_tolerance_for_it(
    models: Path, own: str, tolerances: dict[str, dict[str, float]], provider: str, expected: str
) -> None:
    manifest = Repository(models).open("flowers").manifest
    model = dataclasses.replace(manifest.model, precision=own)
    allowed = {CPU: {"fp32": 1e-4}, **tolerances}
    assert primary_on(dataclasses.replace(manifest, model=model, tolerances=allowed), provider) == expected


# Served


def started(bundle: Bundle, precision: PrecisionChoice) -> Registry:
    registry = Registry(Repository(bundle.path.parents[1]), opener(Settings(precision=precision), "cpu"))
    registry.load_all()
    return registry


def test_each_precision_is_proven_by_its_own_logits_and_says_what_it_is(publish) -> None:
    """The two models' logits differ by more than either's tolerance, so each passes by its own alone."""
    bundle, metrics = publish(), Metrics()
    pixels = np.full((1, 32, 32, 3), (200, 30, 90), np.uint8)
    logits = {}
    for precision, file, top1 in (("fp32", "model.onnx", 1.0), ("int8", "model.int8.onnx", 0.998)):
        model = started(bundle, precision).find()
        logits[precision] = model.engine.run((pixels,)).logits
        assert (model.precision, model.sha256) == (precision, bundle.manifest.files[file])
        assert model.golden_difference < 1e-5
        metrics.loaded(model)
        labels = {"precision": precision, "sha256": model.sha256, "provider": CPU, "architecture": "colours"}
        info = {"model": "flowers", "version": "1", **labels}
        assert metrics.registry.get_sample_value("anther_model_info", info) == 1
        metrics.retired(model)
        shown = description(model)
        assert (shown.precision, shown.sha256, shown.test_metrics.top1) == (precision, model.sha256, top1)
    assert np.abs(logits["fp32"] - logits["int8"]).max() > 1e-3


def test_of_the_two_models_only_the_one_that_serves_is_kept(publish) -> None:
    """The other file may even be gone once the bundle is open."""
    bundle = publish()
    (bundle.path / "model.onnx").unlink()
    assert open_on_cpu(bundle, "int8").precision == "int8"


def test_int8_answers_that_are_not_the_recorded_ones_are_refused(tmp_path: Path, publish) -> None:
    bundle = publish()
    allowed = {CPU: {"fp32": 1e-4, "int8": 1e-9}}
    strict = with_manifest(bundle, tolerances=allowed)
    (bundle.path / "manifest.json").write_text(strict.manifest.to_json())

    class Shifted:
        provider, precision, batch_sizes = CPU, "int8", (1,)

        def __init__(self, opened: Bundle) -> None:
            self._inner = open_on_cpu(opened, "fp32")

        def run(self, parts, evidence=False):
            return self._inner.run(parts, evidence)

        def close(self) -> None:
            self._inner.close()

    with pytest.raises(GoldenMismatch, match="has a logit off by"):
        loader.load(Repository(tmp_path), Shifted, "flowers", 1)


def test_a_version_without_int8_is_refused_in_words_while_the_last_good_one_stays(
    tmp_path: Path, publish, publish_bundle
) -> None:
    registry = started(publish(), "int8")
    publish_bundle(tmp_path)
    registry.refresh()
    assert registry.find().version == 1
    refused = registry.refused["flowers/2"]
    assert refused.endswith(
        "2: it holds no int8 model; serve with --precision auto or fp32, or export the run again with --int8"
    )


@pytest.mark.parametrize("file", ["model.int8.onnx", "golden.npz"])
def test_a_changed_byte_of_what_int8_stands_on_refuses_the_version(publish, file: str) -> None:
    bundle = publish()
    path = bundle.path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleRefused, match="SHA-256"):
        Repository(bundle.path.parents[1]).open("flowers")
