"""The gate's verdict on a version before publication, and the version that it follows: parts of the manifest."""

from dataclasses import dataclass

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Parent:
    """The version that served, by the model's policy, when this one was published."""

    name: str
    version: int
    manifest_sha256: str  # of its manifest.json as a file
    run: str | None  # that made it; None where its manifest does not say
    # Photos, by content and label, of this version alone and of its parent alone; None where the parent's run is gone.
    photos_added: int | None
    photos_removed: int | None


@dataclass(frozen=True)
class Side:
    """One of the two versions that were compared, on the photos of the comparison."""

    top1: float
    negative_log_likelihood: float
    expected_calibration_error: float
    model_bytes: int
    ms_per_picture: float  # median, one picture at a time on one CPU thread


@dataclass(frozen=True)
class ClassComparison:
    """Recall of one class. `p_value` says how likely a loss like this one is by chance alone."""

    label: str
    photos: int
    champion_recall: float
    challenger_recall: float
    p_value: float
    judged: bool  # whether there are photos enough for any loss to be more than chance


@dataclass(frozen=True)
class Verdict:
    """`photos` were answered by both. Without a champion to compare with, there are no figures."""

    passed: bool
    reasons: tuple[str, ...]  # why, in words
    remarks: tuple[str, ...]  # what else one should know of this comparison
    policy: dict[str, Scalar]  # what was allowed
    champion: str | None = None  # 'flowers/3'
    champion_manifest_sha256: str | None = None
    photos: int = 0
    left_out: int = 0  # photos of the challenger's test split that could not be used
    only_challenger_right: int = 0
    only_champion_right: int = 0
    p_value: float | None = None  # McNemar's exact test, two-sided
    challenger_figures: Side | None = None
    champion_figures: Side | None = None
    per_class: tuple[ClassComparison, ...] = ()
