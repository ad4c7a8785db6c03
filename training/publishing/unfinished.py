"""Records the request of a retrain, so that the same command continues its unfinished run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.precision import PrimaryPrecision
from bundle.verdict import Verdict
from training.errors import RunUnusable
from training.publishing.gate_policy import GatePolicy
from training.publishing.release import GATE, PUBLISHED, Release
from training.runs.run import Run, every

_ASKED = "retrain.json"


@dataclass(frozen=True)
class RetrainRecord:
    """The request of a retrain. A run without this record belongs to `anther train` and is never continued."""

    data: str
    weights_identity: str
    strict: bool
    models: str
    gate: GatePolicy | None
    precision: PrimaryPrecision
    int8: bool


def note(run: Run, release: Release) -> None:
    """Leave the record in a new run's folder."""
    run.write(_ASKED, _asked(run, release))


def release_of(run: Run) -> Release | None:
    """The release that was requested with the run; None where the run is no retrain."""
    asked = run.find(_ASKED, RetrainRecord)
    return None if asked is None else Release(Path(asked.models), asked.gate, asked.precision, asked.int8)


def begun(runs: Path) -> Iterator[Run]:
    """Retrains in a model's folder that were neither published nor refused, newest first."""
    for run in every(runs):
        if run.has(_ASKED) and not run.has(PUBLISHED) and not _refused(run):
            yield run


def same(new: Run, release: Release) -> Run | None:
    """An unfinished run of the same request on the same photos as `new`, whose photos are split."""
    return next((run for run in begun(new.path.parent) if run.path != new.path and _alike(run, new, release)), None)


def _alike(run: Run, new: Run, release: Release) -> bool:
    """The gate and the precision may differ: their stages are still to come and follow the new request."""
    try:
        asked, ours = run.find(_ASKED, RetrainRecord), _asked(new, release)
        return (
            asked is not None
            and (asked.data, asked.weights_identity, asked.strict, asked.models)
            == (ours.data, ours.weights_identity, ours.strict, ours.models)
            and (run.asked(), run.split().fingerprint) == (new.asked(), new.split().fingerprint)
        )
    except RunUnusable:  # killed before it had a split, or damaged: nothing to go on with
        return False


def _asked(run: Run, release: Release) -> RetrainRecord:
    source = run.source()
    models = str(release.models.resolve())
    return RetrainRecord(
        source.data, source.weights_identity, source.strict, models, release.gate, release.precision, release.int8
    )


def _refused(run: Run) -> bool:
    verdict = run.find(GATE, Verdict)
    return verdict is not None and not verdict.passed
