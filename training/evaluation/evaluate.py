"""How well a run or a bundle answers photos whose labels are known; a bundle is measured by its own graph."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import schema
from bundle.manifest import Calibration, Metrics
from bundle.repository import Bundle
from training.batch_inference import Lanes, torch_infer
from training.dataset.data import Photo, Scan, Undecodable, scan
from training.errors import UnknownLabels
from training.evaluation.calibrate import softmax
from training.evaluation.metrics import measure
from training.evaluation.robustness import Exam, UnderCorruption, under_corruptions
from training.exporting import onnx_runtime
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter
from training.run_context import RunContext


@dataclass(frozen=True)
class Evaluation:
    """Metrics over `metrics.n` photos. Files that cannot be decoded are listed, and count nowhere else."""

    of: str  # the bundle's or run's folder
    photos: str  # the data folder, or the split's part
    labels: tuple[str, ...]
    metrics: Metrics
    undecodable: tuple[Undecodable, ...] = ()
    seen_in_training: int | None = None  # photos whose content trained or chose the model; None where that is unknown
    corruptions: tuple[UnderCorruption, ...] = field(default=(), metadata=schema.ADDED)  # on request

    def record(self) -> dict[str, Any]:
        """One flat JSON object: the metrics' fields beside the others."""
        record = dataclasses.asdict(self)
        metrics = record.pop("metrics")
        return {**metrics, **record}

    @classmethod
    def read(cls, record: dict[str, Any]) -> "Evaluation":
        """What `record` gave, after a way through JSON. Raises `ManifestInvalid`."""
        names = [field.name for field in dataclasses.fields(Metrics)]
        metrics = {name: record.pop(name) for name in names if name in record}
        return schema.read(cls, {**record, "metrics": metrics})


def of_bundle(bundle: Bundle, data: Path, lanes: Lanes, reporter: Reporter, *, corrupted: bool = False) -> Evaluation:
    """Every decodable photo below the class folders of `data`, through the bundle's preprocessing and graph.

    Raises `NoPhotos`, `FlatFolder` or `UnknownLabels`.
    """
    manifest = bundle.manifest
    scanned = labelled(data, manifest.labels, reporter)
    infer = onnx_runtime.infer(bundle.read(manifest.model.file), "probabilities")
    exam = Exam(scanned.root, scanned.photos, manifest.labels, manifest.preprocessing, infer, lanes)
    return _evaluation(bundle.path, scanned, exam, manifest.calibration, reporter, corrupted=corrupted)


def of_run(
    of: Path,
    model: Classifier,
    calibration: Calibration,
    data: Path,
    material: RunContext,
    reporter: Reporter,
    *,
    corrupted: bool = False,
) -> Evaluation:
    """The same for the model of the run `of`, in torch, with the run's calibration."""
    scanned = labelled(data, material.split.labels, reporter)
    exam = _exam(model, calibration.temperature, scanned.root, scanned.photos, material)
    seen = {photo.digest for photo in (*material.photos("train"), *material.photos("val"))}
    known = sum(photo.digest in seen for photo in scanned.photos)
    found = _evaluation(of, scanned, exam, calibration, reporter, corrupted=corrupted)
    return dataclasses.replace(found, seen_in_training=known)


def of_test(
    of: Path, model: Classifier, calibration: Calibration, material: RunContext, reporter: Reporter
) -> Evaluation:
    """The run's own test split, which nothing before this has looked at."""
    logits = material.logits(model, "test", reporter).outputs
    probabilities = softmax(logits, calibration.temperature)
    metrics = measure(probabilities, material.targets("test").numpy(), material.split.labels, calibration)
    return Evaluation(str(of), "test split", material.split.labels, metrics, (), 0)


def with_corruptions(found: Evaluation, model: Classifier, material: RunContext, reporter: Reporter) -> Evaluation:
    """The run's evaluation on its test split, and beside it the same photos made worse."""
    exam = _exam(model, 1.0, material.root, material.photos("test"), material)
    return dataclasses.replace(found, corruptions=under_corruptions(exam, found.metrics.top1, reporter))


def labelled(data: Path, labels: tuple[str, ...], reporter: Reporter) -> Scan:
    """The folder's photos, all of classes that the model knows; a class may be missing."""
    scanned = scan(data, reporter)
    unknown = [label for label in scanned.labels if label not in labels]
    if unknown:
        raise UnknownLabels(data, unknown, labels)
    return scanned


def _exam(model: Classifier, temperature: float, root: Path, photos: Sequence[Photo], material: RunContext) -> Exam:
    frozen = folded(model)
    infer = torch_infer(lambda pictures: (frozen(pictures) / temperature).softmax(1), frozen)
    return Exam(root, photos, material.split.labels, material.preprocessing, infer, material.lanes)


def _evaluation(
    of: Path, scanned: Scan, exam: Exam, calibration: Calibration, reporter: Reporter, *, corrupted: bool
) -> Evaluation:
    probabilities = exam.answers(exam.preprocessing, reporter, "Answering photos")
    metrics = measure(probabilities, exam.targets, exam.labels, calibration)
    corruptions = under_corruptions(exam, metrics.top1, reporter) if corrupted else ()
    return Evaluation(str(of), str(scanned.source), exam.labels, metrics, scanned.undecodable, corruptions=corruptions)
