"""A retrain from photos to a published version, one at a time for each model. A killed retrain can be resumed."""

import shutil
from pathlib import Path

from anther import files
from bundle.errors import BundleRefused
from bundle.repository import Bundle, Repository, open_bundle
from training import device, pipeline
from training.config import Machine, Recipe
from training.exporting.bundling import ExportOptions
from training.networks import weights
from training.progress import Reporter
from training.publishing import champion, lock, release, unfinished
from training.publishing.release import Release
from training.runs import run
from training.runs.records import TrainingRequest
from training.runs.run import Run


def retrain(
    request: TrainingRequest,
    recipe: Recipe,
    machine: Machine,
    wanted: Release,
    reporter: Reporter,
    *,
    fresh: bool = False,
) -> tuple[Run, Bundle]:
    """All stages, for a new run or, unless `fresh`, for an unfinished one that was to make the same of the same photos.

    Raises `RetrainRunning`, `GateRefused`, and what the stages raise; nothing is published then.
    """
    device.choose(machine)
    run.require_name(request.name)
    weights.identity(request.weights)
    with lock.held(request.runs / request.name):
        started = _begin(request, recipe, wanted, reporter, fresh=fresh)
        return started, _finish(started, machine, wanted, reporter)


def resume(started: Run, machine: Machine, wanted: Release, reporter: Reporter) -> Bundle:
    """Complete a run. Raises what `retrain` raises."""
    device.choose(machine)
    started.source()
    with lock.held(started.path.parent):
        return _finish(started, machine, wanted, reporter)


def _begin(request: TrainingRequest, recipe: Recipe, wanted: Release, reporter: Reporter, *, fresh: bool) -> Run:
    new = pipeline.create(request, recipe, reporter)
    unfinished.note(new, wanted)
    pipeline.prepare(new, reporter)
    before = None if fresh else unfinished.same(new, wanted)
    if before is None:
        return new
    shutil.rmtree(new.path)
    reporter.say(f"going on with the unfinished {before.path}, which was asked for the same (--fresh begins anew)")
    return before


def _finish(started: Run, machine: Machine, wanted: Release, reporter: Reporter) -> Bundle:
    files.sweep(started.path)
    name = started.source().name
    Repository(wanted.models).sweep(name)
    champion.find(wanted.models, name)  # a policy that cannot be read must not come to light after hours of training
    if (done := release.published(started, wanted.models)) is not None:
        return done
    pipeline.resume(started, machine, reporter)
    bundle = release.verify(started, _exported(started, machine, wanted, reporter))
    verdict = None
    if wanted.gate is not None:
        context = pipeline.context_of(started, Machine("cpu", machine.workers))
        verdict = release.judge(started, bundle, context, wanted.models, wanted.gate, reporter)
    return release.publish(started, bundle, verdict, wanted.models)


def _exported(started: Run, machine: Machine, wanted: Release, reporter: Reporter) -> Path:
    """The run's bundle: the one that is there, where it is whole, this run's, and of the precisions that are wanted.

    Where an int8 model is wanted and was left out for its loss, it is tried, and left out, again.
    """
    folder, options = started.path / "bundle", ExportOptions(wanted.precision, wanted.int8)
    try:
        manifest = open_bundle(folder).manifest
    except BundleRefused:
        return pipeline.export(started, None, machine, reporter, options)
    found = (manifest.provenance.run, manifest.model.precision, bool(manifest.variants))
    if found == (started.source().run, wanted.precision, wanted.int8 and wanted.precision == "fp32"):
        return folder
    return pipeline.export(started, None, machine, reporter, options)
