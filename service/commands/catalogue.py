"""The models of a folder for people: their versions, how good they are, and which of them serve."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import BundleRefused, ModelNotFound, PolicyInvalid, VersionNotFound
from bundle.manifest import Calibration, Manifest
from bundle.policy import ServingPolicy, read_policy
from bundle.repository import Bundle, Repository
from bundle.variant import Variant
from service.versions.reconcile import substitutes

Refusal = Callable[[int], str]
"""The reason why a server would refuse a version; empty where it would not."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version on the disk; `bundle` is None where it is damaged, and `reason` then says why."""

    number: int
    bundle: Bundle | None
    reason: str
    size: int  # bytes
    roles: tuple[str, ...]  # 'stable', 'canary 10%' … by the policy; a server may have refused the version


@dataclass(frozen=True, slots=True)
class Entry:
    """One model; `policy_error` where its policy or its folder cannot be read, and the default is shown."""

    name: str
    policy: ServingPolicy
    policy_error: str
    versions: tuple[Version, ...]  # ascending

    @property
    def stable(self) -> int:
        """The stable version where a version may serve as soon as its files are whole."""
        return self.serving(self.damage)

    def damage(self, number: int) -> str:
        """What is wrong with the files of one of `versions`; empty where they are whole."""
        return next(version.reason for version in self.versions if version.number == number)

    def serving(self, refusal: Refusal) -> int:
        """The version that a server starts with as the stable one by this policy; 0 where all would be refused."""
        numbers = [version.number for version in self.versions]
        best_first = dict.fromkeys((*self.policy.wanted(numbers), *substitutes(self.policy, numbers)))
        return next((number for number in best_first if number in numbers and not refusal(number)), 0)


def entries(repository: Repository) -> list[Entry]:
    """Every model, every version; each file is read and checked."""
    names = sorted({*repository.models(), *repository.unreadable()})
    return [_entry_or_reason(repository, name) for name in names]


def _entry_or_reason(repository: Repository, name: str) -> Entry:
    try:
        return entry(repository, name)
    except (BundleRefused, ModelNotFound) as exc:  # the latter: removed meanwhile
        return Entry(name, ServingPolicy(), str(exc), ())


def entry(repository: Repository, name: str) -> Entry:
    """Raises `ModelNotFound`, and `BundleCorrupt` where its folder cannot be listed."""
    numbers = repository.versions(name)
    if not numbers:
        raise ModelNotFound(name, repository.models())
    policy, error = _policy(repository.root, name)
    found = tuple(_version(repository, name, number) for number in numbers)
    stable = Entry(name, policy, error, found).stable
    with_roles = tuple(dataclasses.replace(version, roles=_roles(policy, stable, version)) for version in found)
    return Entry(name, policy, error, with_roles)


def version_record(version: Version) -> dict[str, Any]:
    """A version as JSON has it, in short."""
    record: dict[str, Any] = {
        "version": version.number,
        "roles": list(version.roles),
        "state": "damaged" if version.bundle is None else "whole",
        "reason": version.reason,
        "size_bytes": version.size,
    }
    if version.bundle is None:
        return record
    manifest = version.bundle.manifest
    return {
        **record,
        "created": manifest.provenance.created,
        "architecture": manifest.model.architecture,
        "precision": manifest.model.precision,
        "classes": len(manifest.labels),
        "top1": manifest.metrics.top1,
        "top1_interval": list(manifest.metrics.top1_interval),
        "photos": manifest.metrics.n,
    }


def facts(manifest: Manifest) -> Mapping[str, str]:
    """A manifest for people, the most important facts first."""
    metrics, model, origin, shape = manifest.metrics, manifest.model, manifest.provenance, manifest.preprocessing
    evidence = "with evidence maps" if model.evidence else "without evidence maps"
    return {
        "accuracy": f"{accuracy(manifest)} on {metrics.n} test photos, macro F1 {metrics.macro_f1:.3f}",
        "classes": ", ".join(f"{found.label} (F1 {found.f1:.2f} of {found.support})" for found in metrics.per_class),
        "confident": _confidence(manifest.calibration),
        "model": f"{model.architecture}, {model.parameters:,} parameters, {model.precision}, {evidence}",
        **{found.precision: _variant(found) for found in manifest.variants},
        "images": f"short side to {shape.resize}, centre {shape.crop}×{shape.crop} pixels, {shape.interpolation}",
        "tolerances": "; ".join(f"{name} {_pairs(allowed)}" for name, allowed in manifest.tolerances.items()),
        "trained": f"{origin.created}, strategy {origin.strategy}, seed {origin.seed}",
        "weights": origin.weights,
        "photos": _pairs(origin.photos),
        "data": origin.data_fingerprint,
        **({"code": origin.code} if origin.code else {}),
        **_lineage(manifest),
    }


def _variant(found: Variant) -> str:
    same = f"{found.metrics.agreement:.1%} the same answers"
    return f"top-1 {found.metrics.top1:.3f}, {same}, {found.speedup:.1f} times as fast on one CPU thread when exported"


def _lineage(manifest: Manifest) -> Mapping[str, str]:
    """The version that it follows and the gate's reasons; nothing for a version without a gate."""
    parent, gate = manifest.provenance.parent, manifest.gate
    follows = {} if parent is None else {"follows": f"{parent.name}/{parent.version}"}
    return follows if gate is None else {**follows, "gate": "; ".join((*gate.reasons, *gate.remarks))}


def accuracy(manifest: Manifest) -> str:
    """Top-1 with its 95 % interval."""
    low, high = manifest.metrics.top1_interval
    return f"{manifest.metrics.top1:.3f} ({low:.3f}–{high:.3f})"


def _confidence(calibration: Calibration) -> str:
    share, right = calibration.coverage_at_threshold, calibration.precision_at_threshold
    return f"from probability {calibration.threshold:.2f} on: {share:.1%} of photos, {right:.1%} of them right"


def _pairs(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _policy(root: Path, name: str) -> tuple[ServingPolicy, str]:
    try:
        return read_policy(root, name), ""
    except PolicyInvalid as exc:
        return ServingPolicy(), str(exc)


def _version(repository: Repository, name: str, number: int) -> Version:
    size = 0
    try:
        size = sum(path.lstat().st_size for path in (repository.root / name / str(number)).iterdir())
        return Version(number, repository.open(name, number), "", size, ())
    except (BundleRefused, VersionNotFound, OSError) as exc:  # the last two: removed or locked
        return Version(number, None, str(exc), size, ())


def _roles(policy: ServingPolicy, stable: int, version: Version) -> tuple[str, ...]:
    """None for a model that is out of service."""
    if not policy.loaded:
        return ()
    parts = {"canary": policy.canary, "shadow": policy.shadow}
    shares = [f"{role} {part.share:.4g}" for role, part in parts.items() if part and part.version == version.number]
    if version.number == stable:
        return ("stable",)
    return tuple(shares) or (("by number",) if policy.versions == "all" and version.bundle is not None else ())
