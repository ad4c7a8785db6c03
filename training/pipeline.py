"""From a folder of photos to a published bundle: each stage is a function that can be called alone.

A stage writes its record into the run's folder in one step, and is skipped where the record exists. So a killed run
continues with the stage that was interrupted.

stage      reads                               leaves
check      the data folder                     check.json, photos.jsonl
split      photos.jsonl                        split.json
strategy   train photos, pretrained weights    chosen.json, where the recipe leaves something open
train      train and val photos                model.pt (until then checkpoint.pt; head.jsonl, curves.jsonl, rate.json)
calibrate  model.pt, val photos                calibration.json
evaluate   model.pt, test photos               evaluation.json, of calibrated answers, so that it comes second
export     model.pt, test photos               bundle/, verification.json: no graph that differs gets into a bundle
verify     bundle/                             verified.json: the files on the disk answer as they should
gate       bundle/, the version in service     gate.json: the verdict
publish    bundle/, gate.json                  models/NAME/VERSION, published.json

`anther train` ends before `export`. The last three are in `publishing.release`, and `publishing.retrain` does all.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from bundle.preprocessing import Preprocessing
from bundle.repository import MANIFEST, Bundle, Repository, open_bundle
from training import device
from training.config import Machine, Recipe
from training.dataset import data, split
from training.dataset.listing import root_of
from training.errors import NothingToEvaluate, RunUnusable
from training.evaluation import evaluate
from training.evaluation.calibrate import calibrate, reference, softmax
from training.exporting import bundling
from training.exporting.bundling import ExportOptions
from training.files import write_json_lines
from training.inference import batches
from training.networks import weights
from training.networks.backbones import Classifier
from training.progress import Reporter, timed
from training.runs import run
from training.runs.context import RunContext, TrainingSession
from training.runs.records import Calibrated, Evaluation, TrainingRequest
from training.runs.run import Run
from training.transfer import choice, strategies


def train(request: TrainingRequest, recipe: Recipe, machine: Machine, reporter: Reporter) -> Run:
    """Check, split, train, calibrate on validation, and evaluate on the untouched test split.

    Raises `DataRefused`, `RecipeInvalid`, `WeightsUnusable`, `DeviceUnavailable` or `TrainingDiverged`.
    """
    device.choose(machine)
    return resume(begin(request, recipe, reporter), machine, reporter)


def begin(request: TrainingRequest, recipe: Recipe, reporter: Reporter) -> Run:
    """A new run whose photos are checked and split.

    Raises `DataRefused`, `RecipeInvalid` or `WeightsUnusable`.
    """
    started = create(request, recipe, reporter)
    prepare(started, reporter)
    return started


def create(request: TrainingRequest, recipe: Recipe, reporter: Reporter) -> Run:
    """A new run's folder. Raises `RecipeInvalid` or `WeightsUnusable`, and then there is none."""
    weights.require_usable(recipe, request.weights)
    started = run.create(request, weights.identity(request.weights), recipe)
    reporter.say(f"run {started.path}")
    return started


def prepare(started: Run, reporter: Reporter) -> None:
    """The stages check and split. Raises `DataRefused`."""
    if not started.has("split.json"):
        _stage(started, "check", run.PHOTOS, lambda: check(started, reporter))
        _stage(started, "split", "split.json", lambda: split_photos(started))


def resume(started: Run, machine: Machine, reporter: Reporter) -> Run:
    """Complete the run up to the evaluation. Raises `RunUnusable` and what `train` raises."""
    context = fit(started, machine, reporter)
    _stage(started, "calibrate", "calibration.json", lambda: calibrate_photos(started, context, reporter))
    _stage(started, "evaluate", "evaluation.json", lambda: evaluate_photos(started, context, reporter))
    return started


def fit(started: Run, machine: Machine, reporter: Reporter) -> RunContext:
    """Complete the run up to the trained model, without reading the test split. Raises what `resume` raises."""
    prepare(started, reporter)
    context = context_of(started, machine)
    cache = feature_cache(started)
    _stage(started, "strategy", run.CHOSEN, lambda: choice.choose(started, context, cache, reporter))
    _stage(
        started, "train", "model.pt", lambda: strategies.train(started, _session(started, context, machine, reporter))
    )
    return context


def _session(started: Run, context: RunContext, machine: Machine, reporter: Reporter) -> TrainingSession:
    return TrainingSession(
        context=context,
        recipe=started.recipe(),
        machine=machine,
        folder=started.path,
        feature_cache=feature_cache(started),
        reporter=reporter,
        pretrained=started.source().weights_identity != "none",
    )


def _stage(started: Run, name: str, record: str, work: Callable[[], None]) -> None:
    """Do a stage's work unless its record is there, and note the time that it took."""
    if started.has(record):
        return
    seconds = started.seconds()
    with timed(seconds, name):
        work()
    if started.has(record):  # a strategy that the recipe names needs no record
        started.write("seconds.json", seconds)


def check(started: Run, reporter: Reporter) -> None:
    """Decode every file and list the usable photos. Raises `DataRefused`."""
    source, listed = started.source(), started.path / "check.json"
    scanned = data.scan(Path(source.data), reporter, source.columns)
    photos, found = data.check(scanned)
    started.write("check.json", found)
    data.require_trainable(scanned, found, listed, strict=source.strict)
    if left_out := data.left_out(found):
        reporter.say(f"left out {left_out}; all are listed in {listed}")
    write_json_lines(started.path / run.PHOTOS, [dataclasses.asdict(photo) for photo in photos])


def split_photos(started: Run) -> None:
    """Assign each photo to training, validation or test. Raises `TooFewPhotos`."""
    started.write("split.json", split.split(started.photos(), started.recipe().split_seed))


def feature_cache(started: Run) -> Path:
    """Shared by all runs below the same folder."""
    return started.path.parent.parent / ".cache" / "features"


def calibrate_photos(started: Run, context: RunContext, reporter: Reporter) -> None:
    """Temperature and threshold from the validation split. Raises `RunUnusable`."""
    started.write("calibration.json", calibrate_run(trained(started, context), context, reporter))


def evaluate_photos(started: Run, context: RunContext, reporter: Reporter) -> None:
    """Measure the calibrated model on the test split. Raises `RunUnusable`."""
    found = evaluate.of_test(started, trained(started, context), context, reporter)
    started.write("evaluation.json", found.record())


def context_of(started: Run, machine: Machine) -> RunContext:
    """Split, preprocessing and device of a run."""
    recipe = started.recipe()
    chosen = device.choose(machine)
    return RunContext(
        root=root_of(Path(started.source().data)),
        split=started.split(),
        preprocessing=Preprocessing(resize=recipe.resize, crop=recipe.crop),
        device=chosen,
        parallelism=batches.parallelism(machine, chosen),
    )


def trained(started: Run, context: RunContext) -> Classifier:
    """The run's finished model, in eval mode on the context's device. Raises `RunUnusable`."""
    model = weights.empty(started.recipe(), len(context.split.labels))
    try:
        model.load_state_dict(started.weights())
    except RuntimeError as exc:
        raise RunUnusable(started.path, "model.pt belongs to another network", "start a new run") from exc
    return model.to(context.device).eval()


def calibrate_run(model: Classifier, context: RunContext, reporter: Reporter) -> Calibrated:
    """Temperature, threshold and reference statistics from the validation split."""
    answers = context.logits(model, "val", reporter)
    found = calibrate(answers.outputs, context.targets("val").numpy())
    probabilities = softmax(answers.outputs, found.temperature)
    return Calibrated(found, reference(probabilities, answers.brightness, context.split.labels))


def evaluate_any(
    of: Path, folder: Path | None, machine: Machine, reporter: Reporter, *, corrupted: bool = False
) -> Evaluation:
    """Evaluate a bundle or a run; a run without `folder` on its test split. `corrupted` adds the photos made worse.

    Raises `NothingToEvaluate`, `DataRefused`, `RunUnusable` or `BundleRefused`.
    """
    if (of / MANIFEST).exists():
        if folder is None:
            raise NothingToEvaluate(of, "is a bundle and has no photos of its own", "give a folder with --data")
        chosen = batches.parallelism(Machine("cpu", machine.workers), torch.device("cpu"))
        return evaluate.of_bundle(open_bundle(of), folder, chosen, reporter, corrupted=corrupted)
    if not (of / run.RECIPE).exists():
        raise NothingToEvaluate(of, "is neither a bundle nor a run", "give models/NAME/VERSION or runs/NAME/TIME")
    started = Run(of)
    context = context_of(started, machine)
    model = trained(started, context)
    if folder is None:
        found = evaluate.of_test(started, model, context, reporter)
        return evaluate.with_corruptions(found, model, context, reporter) if corrupted else found
    return evaluate.of_run(started, model, context, folder, reporter, corrupted=corrupted)


def measure_corruptions(started: Run, machine: Machine, reporter: Reporter) -> Evaluation:
    """The run's evaluation with its test photos made worse, kept in the run for its report. Raises `RunUnusable`."""
    context = context_of(started, machine)
    found = evaluate.with_corruptions(started.evaluation(), trained(started, context), context, reporter)
    started.write("evaluation.json", found.record())
    return found


def export(
    started: Run,
    output: Path | None,
    machine: Machine,
    reporter: Reporter,
    options: ExportOptions = bundling.DEFAULTS,
) -> Path:
    """Write a verified bundle into `output`, by default the run's `bundle/`, and return its folder.

    Raises `VerificationFailed`, `RunUnusable` or `LibraryMissing`.
    """
    seconds = started.seconds()
    with timed(seconds, "export"):
        context = context_of(started, Machine("cpu", machine.workers))
        folder = started.path / "bundle" if output is None else output
        bundling.write(started, trained(started, context), context, folder, reporter, options)
    started.write("seconds.json", seconds)
    return folder


def publish(folder: Path, models: Path) -> Bundle:
    """Make a bundle folder the next version of its model below `models`. Raises `BundleRefused`."""
    bundle = open_bundle(folder)
    return Repository(models).publish(bundle.name, lambda staging: bundling.copy(bundle, staging))
