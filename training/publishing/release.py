"""The last stages of a retrain: a bundle is verified as it lies on the disk, judged, and published once.

`gate.json` holds as long as the version in service and the policy are those that it was made with. A version that was
published right before a crash is known by the id of its run.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from bundle import golden
from bundle.errors import BundleRefused
from bundle.manifest import Manifest
from bundle.precision import PrimaryPrecision
from bundle.repository import MANIFEST, Bundle, Repository, open_bundle, sha256_of
from bundle.verdict import Verdict
from training.errors import GateRefused
from training.exporting import bundling
from training.inference import onnx_runtime
from training.progress import Reporter
from training.publishing import champion, gate
from training.publishing.gate_policy import GatePolicy
from training.runs.context import RunContext
from training.runs.run import Run

VERIFIED, GATE, PUBLISHED = "verified.json", "gate.json", "published.json"


@dataclass(frozen=True)
class Release:
    """Where and how a trained run is published."""

    models: Path
    gate: GatePolicy | None = field(default_factory=GatePolicy)  # None publishes without a comparison
    precision: PrimaryPrecision = "fp32"
    int8: bool = True  # a second model beside one of fp32


@dataclass(frozen=True)
class Verified:
    """The bundle that was verified, and the largest difference between its answers and the recorded ones."""

    manifest_sha256: str
    golden_max_abs_logit_difference: float


@dataclass(frozen=True)
class Published:
    models: str
    version: int


def verify(run: Run, folder: Path) -> Bundle:
    """Open a bundle as a reader would and replay its golden pictures; leaves `verified.json`.

    Raises `BundleRefused`.
    """
    bundle = open_bundle(folder)
    digest = sha256_of(folder / MANIFEST)
    done = run.find(VERIFIED, Verified)
    if done is None or done.manifest_sha256 != digest:
        manifest = bundle.manifest
        infer = onnx_runtime.infer(bundle.read(manifest.model.file), "logits")
        tolerance = manifest.tolerances["CPUExecutionProvider"][manifest.model.precision]
        difference = golden.replay(golden.load(bundle), manifest.preprocessing, infer, tolerance)
        run.write(VERIFIED, Verified(digest, difference))
    return bundle


def judge(
    run: Run, bundle: Bundle, context: RunContext, models: Path, policy: GatePolicy, reporter: Reporter
) -> Verdict:
    """Compare with the version in service; leaves `gate.json`. Raises `GateRefused` or `PhotoChanged`."""
    serving = champion.find(models, bundle.name)
    verdict = run.find(GATE, Verdict)
    if verdict is None or not _holds(verdict, serving, policy):
        learned_from = champion.split_of(serving, run.path.parent)
        verdict = gate.judge(bundle, serving, context, policy, learned_from, reporter)
        run.write(GATE, verdict)
    for line in (*verdict.reasons, *verdict.remarks):
        reporter.say(f"gate       {line}")
    if not verdict.passed:
        assert verdict.champion is not None  # without one there is nothing to fail against
        raise GateRefused(bundle.name, verdict.champion, verdict.reasons, run.path / GATE)
    return verdict


def publish(run: Run, bundle: Bundle, verdict: Verdict | None, models: Path) -> Bundle:
    """Make the bundle the next version, with its verdict and parent in the manifest; leaves `published.json`."""
    serving = champion.find(models, bundle.name)
    parent = None
    if serving is not None:
        parent = champion.parent(serving, run.split(), champion.split_of(serving, run.path.parent))
    origin = dataclasses.replace(bundle.manifest.provenance, parent=parent)
    sealed = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, gate=verdict, provenance=origin))
    published = Repository(models).publish(bundle.name, lambda staging: bundling.copy(sealed, staging))
    _note(run, published, models)
    return published


def published(run: Run, models: Path) -> Bundle | None:
    """The version that this run has become below `models`; None where it is not published yet."""
    done, name = run.find(PUBLISHED, Published), run.source().name
    if done is not None and done.models == str(models.resolve()):
        return Repository(models).open(name, done.version)
    found = _version_of(run, name, models)
    if found is None:
        return None
    bundle = Repository(models).open(name, found)
    _note(run, bundle, models)
    return bundle


def _version_of(run: Run, name: str, models: Path) -> int | None:
    """By the run's id in a manifest: what was published right before a crash left no `published.json`."""
    wanted = run.source().run
    for version in reversed(Repository(models).versions(name)) if wanted is not None else ():
        try:
            manifest = Manifest.from_json((models / name / str(version) / MANIFEST).read_text())
        except (BundleRefused, OSError, UnicodeDecodeError):  # not readable, so not what was just published
            continue
        if manifest.provenance.run == wanted:
            return version
    return None


def _note(run: Run, bundle: Bundle, models: Path) -> None:
    run.write(PUBLISHED, Published(str(models.resolve()), bundle.version))


def _holds(verdict: Verdict, serving: Bundle | None, policy: GatePolicy) -> bool:
    """Whether a verdict belongs to the version that serves now and to the present policy."""
    digest = None if serving is None else sha256_of(serving.path / MANIFEST)
    return verdict.champion_manifest_sha256 == digest and verdict.policy == policy.record()
