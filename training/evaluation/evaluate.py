"""Measures a run or a bundle on photos whose labels are known. A bundle is measured by its own graph."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bundle.manifest import Calibration
from bundle.repository import Bundle
from training.dataset.data import Photo, Scan, scan
from training.errors import UnknownLabels
from training.evaluation.calibrate import softmax
from training.evaluation.metrics import measure
from training.evaluation.robustness import EvaluationTask, under_corruptions
from training.inference import onnx_runtime
from training.inference.batches import Parallelism, torch_infer
from training.networks.backbones import Classifier
from training.networks.fold import folded
from training.progress import Reporter
from training.runs.context import RunContext
from training.runs.records import Evaluation
from training.runs.run import Run


def of_bundle(
    bundle: Bundle, data: Path, parallelism: Parallelism, reporter: Reporter, *, corrupted: bool = False
) -> Evaluation:
    """Every decodable photo below the class folders of `data`, through the bundle's preprocessing and graph.

    Raises `DataMissing`, `NoPhotos`, `FlatFolder` or `UnknownLabels`.
    """
    manifest = bundle.manifest
    scanned = labelled(data, manifest.labels, reporter)
    infer = onnx_runtime.infer(bundle.read(manifest.model.file), "probabilities")
    task = EvaluationTask(scanned.root, scanned.photos, manifest.labels, manifest.preprocessing, infer, parallelism)
    return _evaluation(bundle.path, scanned, task, manifest.calibration, reporter, corrupted=corrupted)


def of_run(
    run: Run, model: Classifier, context: RunContext, data: Path, reporter: Reporter, *, corrupted: bool = False
) -> Evaluation:
    """The same for the run's model, in torch, with the run's calibration."""
    calibration = run.calibrated().calibration
    scanned = labelled(data, context.split.labels, reporter)
    task = _task(model, calibration.temperature, scanned.root, scanned.photos, context)
    seen = {photo.digest for photo in (*context.photos("train"), *context.photos("val"))}
    known = sum(photo.digest in seen for photo in scanned.photos)
    found = _evaluation(run.path, scanned, task, calibration, reporter, corrupted=corrupted)
    return dataclasses.replace(found, seen_in_training=known)


def of_test(run: Run, model: Classifier, context: RunContext, reporter: Reporter) -> Evaluation:
    """The run's own test split, which no earlier stage reads."""
    calibration, labels = run.calibrated().calibration, context.split.labels
    probabilities = softmax(context.logits(model, "test", reporter).outputs, calibration.temperature)
    metrics = measure(probabilities, context.targets("test").numpy(), labels, calibration)
    return Evaluation(str(run.path), "test split", labels, metrics, (), 0)


def with_corruptions(found: Evaluation, model: Classifier, context: RunContext, reporter: Reporter) -> Evaluation:
    """The run's evaluation on its test split, and beside it the same photos made worse."""
    task = _task(model, 1.0, context.root, context.photos("test"), context)
    return dataclasses.replace(found, corruptions=under_corruptions(task, found.metrics.top1, reporter))


def labelled(data: Path, labels: tuple[str, ...], reporter: Reporter) -> Scan:
    """The folder's photos, all of classes that the model knows; a class may be missing."""
    scanned = scan(data, reporter)
    unknown = [label for label in scanned.labels if label not in labels]
    if unknown:
        raise UnknownLabels(data, unknown, labels)
    return scanned


def _task(
    model: Classifier, temperature: float, root: Path, photos: Sequence[Photo], context: RunContext
) -> EvaluationTask:
    frozen = folded(model)
    infer = torch_infer(lambda inputs: (frozen(inputs) / temperature).softmax(1), frozen)
    return EvaluationTask(root, photos, context.split.labels, context.preprocessing, infer, context.parallelism)


def _evaluation(
    of: Path, scanned: Scan, task: EvaluationTask, calibration: Calibration, reporter: Reporter, *, corrupted: bool
) -> Evaluation:
    probabilities = task.answers(task.preprocessing, reporter, "Answering photos")
    metrics = measure(probabilities, task.targets, task.labels, calibration)
    corruptions = under_corruptions(task, metrics.top1, reporter) if corrupted else ()
    return Evaluation(str(of), str(scanned.source), task.labels, metrics, scanned.undecodable, corruptions=corruptions)
