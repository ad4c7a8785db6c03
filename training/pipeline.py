"""From a folder of photos to a published bundle: each stage is a function that can be called alone.

A stage writes what it found into the run's folder, and takes what an earlier run of it left there.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from bundle.manifest import Precision
from bundle.preprocessing import Preprocessing
from bundle.repository import MANIFEST, Bundle, Repository, open_bundle
from training import lanes, run
from training.config import Machine, Recipe
from training.dataset import data, split
from training.errors import NothingToEvaluate, RunUnusable
from training.evaluation import evaluate
from training.evaluation.calibrate import calibrate, reference, softmax
from training.evaluation.evaluate import Evaluation
from training.exporting import bundling
from training.learning import device
from training.material import Material
from training.networks import weights
from training.networks.backbones import Classifier
from training.progress import Reporter, timed
from training.run import Calibrated, Run
from training.transfer import strategies


@dataclass(frozen=True)
class Request:
    """What is to be trained, and where the run's folder goes."""

    data: Path
    name: str
    weights: str  # 'imagenet', 'none' or a path
    runs: Path = Path("runs")
    strict: bool = False  # refuse content that stands under two labels instead of leaving it out


def train(request: Request, recipe: Recipe, machine: Machine, reporter: Reporter) -> Run:
    """Check, split, train, calibrate on validation, and evaluate on the untouched test split.

    Raises `DataRefused`, `RecipeInvalid`, `WeightsUnusable`, `DeviceUnavailable` or `TrainingDiverged`.
    """
    device.choose(machine)
    return resume(begin(request, recipe, reporter), machine, reporter)


def begin(request: Request, recipe: Recipe, reporter: Reporter) -> Run:
    """A new run whose photos are checked and split: `check.json` and `split.json`.

    Raises `DataRefused`, `RecipeInvalid` or `WeightsUnusable`.
    """
    identity = weights.identity(request.weights)
    started = run.create(request.runs, request.name, request.data, request.weights, identity, recipe)
    reporter.say(f"run {started.path}")
    seconds: dict[str, float] = {}
    with timed(seconds, "check"):
        scanned = data.scan(request.data, reporter)
        photos, found = data.check(scanned)
        started.write("check.json", found)
        listed = started.path / "check.json"
        data.require_trainable(scanned, found, listed, strict=request.strict)
        if left_out := data.left_out(found):
            reporter.say(f"left out {left_out}; all are listed in {listed}")
        started.write("split.json", split.split(photos, recipe.split_seed))
    started.write("seconds.json", seconds)
    return started


def resume(started: Run, machine: Machine, reporter: Reporter) -> Run:
    """Do what is missing of a run whose photos are split. Raises `RunUnusable` and what `train` raises."""
    recipe, source = started.recipe(), started.source()
    material = material_of(started, machine)
    seconds = started.seconds()
    if not started.has("model.pt"):
        with timed(seconds, "train"):
            model = weights.build(recipe, len(material.split.labels), source.weights)
            cache = started.path.parent.parent / ".cache" / "features"
            pretrained = source.weights_identity != "none"
            strategies.run(model, material, recipe, machine, started.path, cache, reporter, pretrained=pretrained)
            started.write_bytes("model.pt", _state_bytes(model))
        started.write("seconds.json", seconds)
    if not started.has("evaluation.json"):
        with timed(seconds, "evaluate"):
            model = trained(started, material)
            calibrated = calibrate_run(model, material, reporter)
            started.write("calibration.json", calibrated)
            temperature = calibrated.calibration.temperature
            found = evaluate.of_test(started.path, model, temperature, material, reporter)
            started.write("evaluation.json", found.record())
        started.write("seconds.json", seconds)
    return started


def material_of(started: Run, machine: Machine) -> Material:
    """Split, preprocessing and device of a run."""
    recipe = started.recipe()
    chosen = device.choose(machine)
    return Material(
        root=Path(started.source().data),
        split=started.split(),
        preprocessing=Preprocessing(resize=recipe.resize, crop=recipe.crop),
        device=chosen,
        lanes=lanes.lanes_for(machine, chosen),
    )


def trained(started: Run, material: Material) -> Classifier:
    """The run's finished model, in eval mode on the material's device. Raises `RunUnusable`."""
    model = weights.empty(started.recipe(), len(material.split.labels))
    try:
        model.load_state_dict(started.weights())
    except RuntimeError as exc:
        raise RunUnusable(started.path, "model.pt belongs to another network", "start a new run") from exc
    return model.to(material.device).eval()


def calibrate_run(model: Classifier, material: Material, reporter: Reporter) -> Calibrated:
    """Temperature, threshold and reference statistics from the validation split."""
    answers = material.logits(model, "val", reporter)
    found = calibrate(answers.outputs, material.targets("val").numpy())
    probabilities = softmax(answers.outputs, found.temperature)
    return Calibrated(found, reference(probabilities, answers.brightness, material.split.labels))


def evaluate_any(of: Path, folder: Path | None, machine: Machine, reporter: Reporter) -> Evaluation:
    """Evaluate a bundle or a run; a run without `folder` on its test split.

    Raises `NothingToEvaluate`, `DataRefused`, `RunUnusable` or `BundleRefused`.
    """
    if (of / MANIFEST).exists():
        if folder is None:
            raise NothingToEvaluate(of, "is a bundle and has no photos of its own", "give a folder with --data")
        chosen = lanes.lanes_for(Machine("cpu", machine.workers), torch.device("cpu"))
        return evaluate.of_bundle(open_bundle(of), folder, chosen, reporter)
    if not (of / run.RECIPE).exists():
        raise NothingToEvaluate(of, "is neither a bundle nor a run", "give models/NAME/VERSION or runs/NAME/TIME")
    started = Run(of)
    material = material_of(started, machine)
    model = trained(started, material)
    temperature = started.calibrated().calibration.temperature
    if folder is None:
        return evaluate.of_test(of, model, temperature, material, reporter)
    return evaluate.of_run(of, model, temperature, folder, material, reporter)


def export(
    started: Run, output: Path | None, machine: Machine, reporter: Reporter, precision: Precision = "fp32"
) -> Path:
    """Write a verified bundle into `output`, by default the run's `bundle/`, and return its folder.

    Raises `VerificationFailed`, `RunUnusable` or `LibraryMissing`.
    """
    seconds = started.seconds()
    with timed(seconds, "export"):
        material = material_of(started, Machine("cpu", machine.workers))
        folder = started.path / "bundle" if output is None else output
        bundling.write(started, trained(started, material), material, folder, reporter, precision)
    started.write("seconds.json", seconds)
    return folder


def publish(folder: Path, models: Path) -> Bundle:
    """Make a bundle folder the next version of its model below `models`. Raises `BundleRefused`."""
    bundle = open_bundle(folder)
    return Repository(models).publish(bundle.name, lambda staging: bundling.copy(bundle, staging))


def retrain(request: Request, recipe: Recipe, machine: Machine, models: Path, reporter: Reporter) -> tuple[Run, Bundle]:
    """All of it: train, export, verify, publish."""
    finished = train(request, recipe, machine, reporter)
    return finished, publish(export(finished, None, machine, reporter), models)


def _state_bytes(model: Classifier) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, buffer)
    return buffer.getvalue()
