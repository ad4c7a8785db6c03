"""Bundles without torch: a tiny ONNX classifier that answers by colour, with everything a real bundle holds."""

import colorsys
import dataclasses
import functools
import hashlib
import io
import os
import signal
from pathlib import Path
from typing import Protocol

# One thread of mathematics a process. Processes of tests fill the cores, and threads that wait for each other take
# a multiple of the time where cores are busy. NumPy and torch read this when they are imported; children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from bundle import golden
from bundle.manifest import (
    Calibration,
    ClassMetrics,
    Histogram,
    Manifest,
    Metrics,
    Model,
    Provenance,
    Reference,
)
from bundle.preprocessing import Preprocessing
from bundle.repository import GOLDEN, MANIFEST, REPORT, Repository
from bundle.variant import Variant, VariantMetrics

os.environ["ANTHER_WORKERS"] = "1"  # servers of the tests are one process, however many cores there are, unless told
os.environ["ANTHER_HTTP_PORT"] = "none"  # and leave HTTP's usual port to others

# No example is timed: other tests, and other programs, share the cores.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

FOLDERS_THAT_TRAIN = {"e2e", "training"}
MODEL, INT8_MODEL = "model.onnx", "model.int8.onnx"
LABELS = ("daisy", "tulips", "roses")
TEMPERATURE = 1.5
EVIDENCE_SIDE = 4
OPSET, IR_VERSION = 18, 10


class MakeBundle(Protocol):
    def __call__(
        self,
        folder: Path,
        *,
        name: str = "flowers",
        labels: tuple[str, ...] = LABELS,
        seed: int = 0,
        crop: int = 32,
        resize: int = 36,
        evidence: bool = True,
        int8: VariantMetrics | None = None,
    ) -> Path: ...


class PublishBundle(Protocol):
    def __call__(self, root: Path, name: str = "flowers", seed: int = 0, **options: object) -> int: ...


class MakePicture(Protocol):
    def __call__(
        self, colour: tuple[int, int, int], size: tuple[int, int] = (60, 40), format_name: str = "PNG"
    ) -> bytes: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What trains comes first, since its files take longest and processes should end at the same time."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in FOLDERS_THAT_TRAIN)


@pytest.fixture(scope="session", autouse=True)
def _sigint_is_not_ignored() -> None:
    """Who starts the tests in the background of a script has them ignore Ctrl-C, and every process that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """`make_bundle(folder, name=, labels=, seed=, crop=, resize=, evidence=)` writes a valid bundle into a new folder.

    Its classifier has one hue for each label, spread evenly from red: with three labels a red picture is the first, a
    green one the second, a blue one the third. Another seed gives other logits for the same classes. `int8=` adds a
    second model with such test metrics, whose weights are rounded to eighths; it is said to be twice as fast.
    """

    def make(folder: Path, **options: object) -> Path:
        folder.mkdir(parents=True)
        write_bundle(folder, **options)
        return folder

    return make


@pytest.fixture(scope="session")
def publish_bundle() -> PublishBundle:
    """`publish_bundle(root, name=, seed=, …)` publishes such a bundle as the next version and returns its number."""

    def publish(root: Path, name: str = "flowers", seed: int = 0, **options: object) -> int:
        def write(folder: Path) -> None:
            write_bundle(folder, name=name, seed=seed, **options)

        return Repository(root).publish(name, write).version

    return publish


@pytest.fixture(scope="session")
def make_picture() -> MakePicture:
    """`make_picture((255, 0, 0), size=, format_name=)` gives the encoded bytes of a picture of one colour."""

    def make(colour: tuple[int, int, int], size: tuple[int, int] = (60, 40), format_name: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", size, colour).save(buffer, format_name)
        return buffer.getvalue()

    return make


def write_bundle(folder: Path, **options: object) -> None:
    """As the fixture `make_bundle` does, into a folder that is there."""
    for file, content in _bundle_files(**options).items():
        (folder / file).write_bytes(content)


@functools.cache
def _bundle_files(
    name: str = "flowers",
    labels: tuple[str, ...] = LABELS,
    seed: int = 0,
    crop: int = 32,
    resize: int = 36,
    evidence: bool = True,
    int8: VariantMetrics | None = None,
) -> dict[str, bytes]:
    preprocessing = Preprocessing(resize=resize, crop=crop)
    model = _classifier(len(labels), seed, crop, evidence)
    lower = {} if int8 is None else {INT8_MODEL: _classifier(len(labels), seed, crop, evidence, steps=8)}
    files = {
        MODEL: model,
        **lower,
        GOLDEN: _golden(preprocessing, model, *lower.values()),
        REPORT: f"<!doctype html><title>{name}</title><p>A bundle for tests, seed {seed}.</p>\n".encode(),
    }
    manifest = _manifest(name, labels, preprocessing, evidence, files)
    if int8 is not None:
        manifest = _with_int8(manifest, int8, len(lower[INT8_MODEL]))
    return {**files, MANIFEST: manifest.to_json().encode()}


def _golden(preprocessing: Preprocessing, model: bytes, int8: bytes | None = None) -> bytes:
    pictures = _pictures(preprocessing)
    found = dataclasses.replace(pictures, logits=_logits(model, pictures.pixels))
    return (found if int8 is None else found.with_variant("int8", _logits(int8, pictures.pixels))).to_bytes()


def _logits(model: bytes, pixels: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"pixels": pixels})[0]


def _with_int8(manifest: Manifest, metrics: VariantMetrics, size: int) -> Manifest:
    variant = Variant("int8", INT8_MODEL, size, metrics, speedup=2.0, largest_loss=0.005)
    allowed = {**manifest.tolerances, "CPUExecutionProvider": {"fp32": 1e-4, "int8": 1e-3}}
    return dataclasses.replace(manifest, variants=(variant,), tolerances=allowed)


@functools.cache
def _pictures(preprocessing: Preprocessing) -> golden.Golden:
    """Drawn once for all models, as drawing is what takes time."""
    return golden.record(preprocessing, lambda pixels: np.zeros((len(pixels), 1), np.float32))


def _classifier(classes: int, seed: int, crop: int, evidence: bool, steps: float = 0) -> bytes:
    """Mean colours of 4×4 cells → a linear map: its values are the evidence, their mean plus the bias the logits."""
    hues = np.array([colorsys.hsv_to_rgb(index / classes, 1.0, 1.0) for index in range(classes)])
    noise = np.random.default_rng(seed).normal(0.0, 0.2, (2, classes, 3))
    weights = {
        "scale": np.float32(255.0),
        "mean": np.full((1, 1, 1, 3), 0.5, np.float32),
        "weight": (8.0 * (hues - hues.mean(axis=1, keepdims=True)) + noise[0]).astype(np.float32)[:, :, None, None],
        "bias": noise[1, :, 0].astype(np.float32),
        "temperature": np.float32(TEMPERATURE),
    }
    if steps:
        weights["weight"] = np.round(weights["weight"] * np.float32(steps)) / np.float32(steps)
    cell = crop // EVIDENCE_SIDE
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Sub", ["unit", "mean"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[cell, cell], strides=[cell, cell]),
        helper.make_node("Conv", ["cells", "weight"], ["evidence"]),
        helper.make_node("GlobalAveragePool", ["evidence"], ["mean_evidence"]),
        helper.make_node("Flatten", ["mean_evidence"], ["unbiased"], axis=1),
        helper.make_node("Add", ["unbiased", "bias"], ["logits"]),
        helper.make_node("Div", ["logits", "temperature"], ["calibrated"]),
        helper.make_node("Softmax", ["calibrated"], ["probabilities"], axis=1),
    ]
    outputs = {"probabilities": ["batch", classes], "logits": ["batch", classes]}
    if evidence:
        outputs["evidence"] = ["batch", classes, EVIDENCE_SIDE, EVIDENCE_SIDE]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", crop, crop, 3])],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _manifest(
    name: str, labels: tuple[str, ...], preprocessing: Preprocessing, evidence: bool, files: dict[str, bytes]
) -> Manifest:
    return Manifest(
        schema_version=1,
        name=name,
        labels=labels,
        model=Model(MODEL, "colours", "fp32", OPSET, IR_VERSION, 4 * len(labels), evidence),
        preprocessing=preprocessing,
        calibration=Calibration(TEMPERATURE, 0.7, 1.0, 0.9),
        tolerances={
            "CPUExecutionProvider": {"fp32": 1e-4},
            "CUDAExecutionProvider": {"fp32": 1e-2},
        },
        metrics=_metrics(labels),
        provenance=Provenance(
            created="2026-01-01T00:00:00+00:00",
            data_fingerprint=hashlib.sha256(b"no photos").hexdigest(),
            photos={"train": 80, "validation": 10, "test": 10 * len(labels)},
            split_seed=0,
            seed=0,
            strategy="head",
            recipe={"epochs": 1, "rate": 0.1, "optimizer": "none", "ema": False, "resumed": None},
            weights="none",
            versions={"numpy": np.__version__},
            git_commit=None,
        ),
        reference=Reference(
            predicted=dict.fromkeys(labels, 10),
            confidence=Histogram((0.0, 0.5, 1.0), (2, 10 * len(labels) - 2)),
            brightness=Histogram((0.0, 128.0, 255.0), (5, 10 * len(labels) - 5)),
        ),
        files={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    )


def _metrics(labels: tuple[str, ...]) -> Metrics:
    classes = len(labels)
    return Metrics(
        n=10 * classes,
        top1=1.0,
        top1_interval=(0.9, 1.0),
        macro_f1=1.0,
        negative_log_likelihood=0.1,
        expected_calibration_error=0.02,
        per_class=tuple(ClassMetrics(label, 1.0, 1.0, 1.0, 10) for label in labels),
        confusion=tuple(tuple(10 * (row == column) for column in range(classes)) for row in range(classes)),
    )
