"""How well a run or a bundle answers photos whose labels are known; a bundle is measured by its own graph."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bundle import schema
from bundle.manifest import Metrics
from bundle.preprocessing import Preprocessing
from bundle.repository import Bundle
from training.dataset.data import Scan, Undecodable, scan
from training.errors import UnknownLabels
from training.evaluation.calibrate import softmax
from training.evaluation.metrics import measure
from training.exporting import onnx_runtime
from training.lanes import Infer, Lanes, answer_all, torch_infer
from training.material import Material
from training.networks.backbones import Classifier
from training.progress import Reporter


@dataclass(frozen=True)
class Evaluation:
    """Metrics over `metrics.n` photos. Files that cannot be decoded are listed, and count nowhere else."""

    of: str  # the bundle's or run's folder
    photos: str  # the data folder, or the split's part
    labels: tuple[str, ...]
    metrics: Metrics
    undecodable: tuple[Undecodable, ...] = ()
    seen_in_training: int | None = None  # photos whose content trained or chose the model; None where that is unknown

    def record(self) -> dict[str, Any]:
        """One flat JSON object: the metrics' fields beside the others."""
        record = dataclasses.asdict(self)
        metrics = record.pop("metrics")
        return {**metrics, **record}

    @classmethod
    def read(cls, record: dict[str, Any]) -> "Evaluation":
        """What `record` gave, after a way through JSON. Raises `ManifestInvalid`."""
        names = [field.name for field in dataclasses.fields(Metrics)]
        metrics = {name: record.pop(name, None) for name in names}
        return schema.read(cls, {**record, "metrics": metrics})


def of_bundle(bundle: Bundle, data: Path, lanes: Lanes, reporter: Reporter) -> Evaluation:
    """Every decodable photo below the class folders of `data`, through the bundle's preprocessing and graph.

    Raises `NoPhotos`, `FlatFolder` or `UnknownLabels`.
    """
    manifest = bundle.manifest
    scanned = labelled(data, manifest.labels, reporter)
    infer = onnx_runtime.infer(bundle.read(manifest.model.file), "probabilities")
    metrics = _measure(scanned, manifest.preprocessing, infer, manifest.labels, lanes, reporter)
    return Evaluation(str(bundle.path), str(data), manifest.labels, metrics, scanned.undecodable)


def of_run(
    of: Path, model: Classifier, temperature: float, data: Path, material: Material, reporter: Reporter
) -> Evaluation:
    """The same for the model of the run `of`, in torch, with the run's calibration."""
    labels = material.split.labels
    scanned = labelled(data, labels, reporter)
    infer = torch_infer(lambda pictures: (model(pictures) / temperature).softmax(1), model)
    metrics = _measure(scanned, material.preprocessing, infer, labels, material.lanes, reporter)
    seen = {photo.digest for photo in (*material.photos("train"), *material.photos("val"))}
    known = sum(photo.digest in seen for photo in scanned.photos)
    return Evaluation(str(of), str(data), labels, metrics, scanned.undecodable, known)


def of_test(of: Path, model: Classifier, temperature: float, material: Material, reporter: Reporter) -> Evaluation:
    """The run's own test split, which nothing before this has looked at."""
    logits = material.logits(model, "test", reporter).outputs
    probabilities = softmax(logits, temperature)
    metrics = measure(probabilities, material.targets("test").numpy(), material.split.labels)
    return Evaluation(str(of), "test split", material.split.labels, metrics, (), 0)


def labelled(data: Path, labels: tuple[str, ...], reporter: Reporter) -> Scan:
    """The folder's photos, all of classes that the model knows; a class may be missing."""
    scanned = scan(data, reporter)
    unknown = [label for label in scanned.labels if label not in labels]
    if unknown:
        raise UnknownLabels(data, unknown, labels)
    return scanned


def _measure(
    scanned: Scan, preprocessing: Preprocessing, infer: Infer, labels: tuple[str, ...], lanes: Lanes, reporter: Reporter
) -> Metrics:
    answers = answer_all(scanned.root, scanned.photos, preprocessing, infer, lanes, reporter, "Answering photos")
    return measure(answers.outputs, np.array([labels.index(photo.label) for photo in scanned.photos]), labels)
