"""Decides whether a new version may replace the one in service. Both answer the same photos.

A loss counts where it is over the margin of the policy and more than chance. How that is asked depends on the measure:
top-1      McNemar's exact test; significantly worse is refused whatever the margin, and over the margin already a loss
           that comes by chance less than one time in five
classes    the same test on the photos of one class, one-sided and multiplied by the number of classes (Bonferroni), so
           that all classes together fail by chance less than one time in twenty; a class so small that even losing
           every photo could be chance is not judged, and the verdict says so
NLL, ECE   worse in 95 % of paired bootstrap resamples, from 30 photos on
size, time measured, so the margin alone decides
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from bundle.repository import MANIFEST, Bundle, sha256_of
from bundle.verdict import ClassComparison, Verdict
from training.dataset.split import Split
from training.evaluation.metrics import calibration_error, negative_log_likelihood
from training.progress import Reporter
from training.publishing import chance, comparison
from training.publishing.comparison import Comparison
from training.publishing.gate_policy import GatePolicy
from training.runs.context import RunContext

_SIGNIFICANT = 0.05
_LIKELY = 0.2  # a loss over the margin that comes by chance more often than this is not held against anyone
_MIN_PHOTOS_FOR_CALIBRATION = 30  # photos, two for each bin of the calibration error


def judge(
    challenger: Bundle,
    champion: Bundle | None,
    context: RunContext,
    policy: GatePolicy,
    learned_from: Split | None,
    reporter: Reporter,
) -> Verdict:
    """Compare on the comparable photos of the challenger's test split. Raises `PhotoChanged`.

    `learned_from` is the split that the champion was trained on, where its run is still there.
    """
    if champion is None:
        return Verdict(True, ("there is no version that it could be worse than",), (), policy.record())
    test = context.photos("test")
    fair = comparison.comparable_photos(test, context.split.seed, champion.manifest, learned_from)
    faults, remarks = _label_faults(challenger, champion, policy), (*fair.remarks, *_differences(challenger, champion))
    name = f"{champion.name}/{champion.version}"
    if fair.photos:
        found = comparison.compare(challenger, champion, fair.photos, context.inference(reporter))
        verdict = weigh(found, name, policy, faults)
    else:
        nothing = (f"no test photo is of a class that {name} knows, so nothing can be compared",)
        verdict = Verdict(policy.allow_label_change, faults or nothing, (), policy.record())
    return dataclasses.replace(
        verdict,
        remarks=(*remarks, *verdict.remarks),
        champion=name,
        champion_manifest_sha256=sha256_of(champion.path / MANIFEST),
        left_out=len(test) - len(fair.photos),
    )


def weigh(found: Comparison, champion: str, policy: GatePolicy, faults: tuple[str, ...] = ()) -> Verdict:
    """The verdict on what was measured; `faults` are reasons to refuse that were found before."""
    ours, theirs = found.challenger_right, found.champion_right
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    classes = tuple(_classes(found))
    small = ", ".join(row.label for row in classes if not row.judged)
    faults = (
        *faults,
        *_accuracy_faults(gained, lost, len(ours), policy),
        *_class_faults(classes, policy),
        *_calibration_faults(found, policy),
        *_cost_faults(found, policy),
    )
    equal = f"no worse than {champion} on the same {len(ours)} photos: {_tally(gained, lost)}"
    return Verdict(
        passed=not faults,
        reasons=faults or (equal,),
        remarks=(f"too few photos to judge these classes one by one: {small}",) if small else (),
        policy=policy.record(),
        photos=len(ours),
        only_challenger_right=gained,
        only_champion_right=lost,
        p_value=chance.mcnemar(gained, lost),
        challenger_figures=found.challenger_figures,
        champion_figures=found.champion_figures,
        per_class=classes,
    )


def _accuracy_faults(gained: int, lost: int, photos: int, policy: GatePolicy) -> Iterator[str]:
    p_value = chance.mcnemar(gained, lost)
    loss = (lost - gained) / photos
    if lost > gained and p_value < _SIGNIFICANT:
        yield f"it is significantly less accurate: {_tally(gained, lost)}"
    elif loss > policy.max_loss and chance.at_most(gained, gained + lost) < _LIKELY:
        yield f"top-1 is {loss:.1%} lower, where {policy.max_loss:.1%} is allowed: {_tally(gained, lost)}"
    elif policy.require_better and (gained <= lost or p_value >= _SIGNIFICANT):
        yield f"it is not significantly more accurate, as was asked for: {_tally(gained, lost)}"


def _tally(gained: int, lost: int) -> str:
    p_value = chance.mcnemar(gained, lost)
    return f"photos that only the new version gets right: {gained}, only the old one: {lost} (p = {p_value:.2g})"


def _classes(found: Comparison) -> Iterator[ClassComparison]:
    present = np.unique(found.targets).tolist()
    for index in present:
        of_class = found.targets == index
        ours, theirs = found.challenger_right[of_class], found.champion_right[of_class]
        gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        yield ClassComparison(
            label=found.labels[index],
            photos=len(ours),
            champion_recall=float(theirs.mean()),
            challenger_recall=float(ours.mean()),
            p_value=min(1.0, chance.at_most(gained, gained + lost) * len(present)),
            judged=chance.at_most(0, len(ours)) * len(present) < _SIGNIFICANT,
        )


def _class_faults(classes: tuple[ClassComparison, ...], policy: GatePolicy) -> Iterator[str]:
    for row in classes:
        if row.champion_recall - row.challenger_recall > policy.max_class_loss and row.p_value < _SIGNIFICANT:
            yield (
                f"class '{row.label}' has recall {row.challenger_recall:.3f} instead of {row.champion_recall:.3f} on "
                f"{row.photos} photos, where {policy.max_class_loss:g} less is allowed"
            )


def _calibration_faults(found: Comparison, policy: GatePolicy) -> Iterator[str]:
    if len(found.targets) < _MIN_PHOTOS_FOR_CALIBRATION:
        return
    measures = (
        ("negative log-likelihood", negative_log_likelihood, policy.max_nll_loss),
        ("calibration error", calibration_error, policy.max_calibration_loss),
    )
    for name, measure, margin in measures:
        ours, theirs = measure(found.challenger, found.targets), measure(found.champion, found.targets)
        if ours - theirs <= margin:
            continue
        if chance.worse_share(found.challenger, found.champion, found.targets, measure) >= 1 - _SIGNIFICANT:
            yield f"the {name} is {ours:.3f} instead of {theirs:.3f}, where {margin:g} more is allowed"


def _cost_faults(found: Comparison, policy: GatePolicy) -> Iterator[str]:
    ours, theirs = found.challenger_figures, found.champion_figures
    if ours.ms_per_picture > policy.max_slowdown * theirs.ms_per_picture:
        yield (
            f"a photo takes {ours.ms_per_picture:.2f} ms instead of {theirs.ms_per_picture:.2f} on one thread, "
            f"where {policy.max_slowdown:g} times as much is allowed"
        )
    if ours.model_bytes > policy.max_growth * theirs.model_bytes:
        yield (
            f"the model has {ours.model_bytes / 1e6:.1f} MB instead of {theirs.model_bytes / 1e6:.1f}, "
            f"where {policy.max_growth:g} times as much is allowed"
        )


def _label_faults(challenger: Bundle, champion: Bundle, policy: GatePolicy) -> tuple[str, ...]:
    gone = _missing(champion, challenger)
    if not gone or policy.allow_label_change:
        return ()
    return (f"it does not know {gone}, which the version in service does; --allow-label-change allows that",)


def _differences(challenger: Bundle, champion: Bundle) -> Iterator[str]:
    if gone := _missing(champion, challenger):
        yield f"no longer known: {gone}"
    if new := _missing(challenger, champion):
        yield f"new, so not compared: {new}"
    if challenger.manifest.preprocessing != champion.manifest.preprocessing:
        yield "the versions preprocess differently; each answered in its own way"


def _missing(of: Bundle, among: Bundle) -> str:
    return ", ".join(label for label in of.manifest.labels if label not in among.manifest.labels)
