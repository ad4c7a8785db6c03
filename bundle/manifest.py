"""`manifest.json` as one typed record: everything that a prediction depends on, and where it came from.

The file carries its own SHA-256, taken over its text with the digest left blank, so that no byte of it can change
unnoticed.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from bundle import schema
from bundle.errors import ManifestInvalid
from bundle.measures import Bin, Confident, TopK, Uncalibrated
from bundle.precision import PrimaryPrecision, VariantPrecision
from bundle.preprocessing import Preprocessing
from bundle.variant import Variant
from bundle.verdict import Parent, Verdict

SCHEMA_VERSION = 1

Scalar = str | int | float | bool | None

_MAX_COUNT = 2**63 - 1  # counts travel in 64 bits
_MAX_TEXT = 256  # characters of a label or an architecture, which stand in every answer and metric

TF32: Final = "tf32"
CUDA = "CUDAExecutionProvider"

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST_LINE = '"manifest_sha256": "{}"'
_SHA256 = re.compile(r"[0-9a-f]{64}")


def valid_name(name: str) -> bool:
    """Lower-case letters, digits, dot, dash and underscore; safe as a folder name and as a metric label."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Model:
    """The graph's own facts: `pixels` uint8 [N, crop, crop, 3] in, `probabilities` and `logits` float32 [N, C] out."""

    file: str
    architecture: str
    precision: PrimaryPrecision  # of weights and arithmetic inside; inputs and outputs are the same for every precision
    opset: int
    ir_version: int
    parameters: int
    evidence: bool  # whether the graph also gives `evidence` float32 [N, C, h, w]

    def __post_init__(self) -> None:
        for name in ("opset", "ir_version", "parameters"):
            if not 0 <= getattr(self, name) <= _MAX_COUNT:
                raise ValueError(f"{name} from 0 to {_MAX_COUNT}, got {getattr(self, name)}")
        if len(self.architecture) > _MAX_TEXT:
            raise ValueError(f"an architecture of at most {_MAX_TEXT} characters, got {len(self.architecture):,}")


@dataclass(frozen=True)
class Calibration:
    """probabilities = softmax(logits / temperature), after Guo et al. 2017, "On Calibration of Modern Neural Networks".

    An answer whose top probability reaches `threshold` is called confident; on the validation split such answers were
    right in `precision_at_threshold` of cases, and made up `coverage_at_threshold` of all.
    """

    temperature: float
    threshold: float
    precision_at_threshold: float
    coverage_at_threshold: float
    # Lower end of the 95 % Wilson interval of that precision: low where it rests on few photos.
    precision_lower_bound: float | None = field(default=None, metadata=schema.ADDED)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"a temperature over 0, got {self.temperature}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"a threshold from 0 to 1, got {self.threshold}")


@dataclass(frozen=True)
class ClassMetrics:
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    # None where nothing was answered so, and where no photo is of the class.
    precision_interval: tuple[float, float] | None = field(default=None, metadata=schema.ADDED)
    recall_interval: tuple[float, float] | None = field(default=None, metadata=schema.ADDED)


@dataclass(frozen=True)
class Metrics:
    """Measured once, on photos that neither training nor calibration saw.

    Intervals are 95 % Wilson intervals; that of macro F1 is a bootstrap interval.
    """

    n: int
    top1: float
    top1_interval: tuple[float, float]
    macro_f1: float
    negative_log_likelihood: float
    expected_calibration_error: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows are true classes, columns predicted ones
    top_k: TopK | None = field(default=None, metadata=schema.ADDED)  # None for two classes, where it says nothing
    macro_f1_interval: tuple[float, float] | None = field(default=None, metadata=schema.ADDED)
    brier: float | None = field(default=None, metadata=schema.ADDED)
    reliability: tuple[Bin, ...] = field(default=(), metadata=schema.ADDED)
    uncalibrated: Uncalibrated | None = field(default=None, metadata=schema.ADDED)
    # (coverage, risk): the share of the surest answers, and how many of them are wrong.
    risk_coverage: tuple[tuple[float, float], ...] = field(default=(), metadata=schema.ADDED)
    aurc: float | None = field(default=None, metadata=schema.ADDED)  # area under that curve; 0 is perfect
    confident: Confident | None = field(default=None, metadata=schema.ADDED)


@dataclass(frozen=True)
class Provenance:
    """What is needed to repeat the training, or to say why it cannot be repeated."""

    created: str  # ISO 8601, UTC
    data_fingerprint: str  # SHA-256 over the sorted (content digest, label) pairs
    photos: dict[str, int]  # split name → count
    split_seed: int
    seed: int
    strategy: str
    recipe: dict[str, Scalar]
    weights: str  # 'imagenet', 'none', or the SHA-256 of the file
    versions: dict[str, str]  # libraries and image codecs
    git_commit: str | None
    run: str | None = field(default=None, metadata=schema.ADDED)  # the run's own id, unlike any other's
    parent: Parent | None = field(default=None, metadata=schema.ADDED)

    @property
    def code(self) -> str:
        """The program that trained it, as far as it is known: Anther's version, and its commit where it had one."""
        version, commit = self.versions.get("anther"), self.git_commit
        return ", ".join([*([f"anther {version}"] if version else []), *([f"commit {commit}"] if commit else [])])


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lay in [edges[i], edges[i + 1]); the last bin includes its right edge."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(f"one more edge than counts, got {len(self.edges)} and {len(self.counts)}")
        if any(right <= left for left, right in itertools.pairwise(self.edges)):
            raise ValueError(f"edges that rise, got {list(self.edges)}")
        if not all(0 <= count <= _MAX_COUNT for count in self.counts):
            raise ValueError(f"counts from 0 to {_MAX_COUNT}, got {list(self.counts)}")


@dataclass(frozen=True)
class Reference:
    """How inputs and answers were distributed on the validation split: what drift is measured against."""

    predicted: dict[str, int]  # label → count
    confidence: Histogram  # top probability
    brightness: Histogram  # mean of the preprocessed pixels, 0 to 255

    def __post_init__(self) -> None:
        if not all(0 <= count <= _MAX_COUNT for count in self.predicted.values()):
            raise ValueError(f"counts from 0 to {_MAX_COUNT}, got {self.predicted}")


@dataclass(frozen=True)
class Manifest:
    schema_version: int
    name: str
    labels: tuple[str, ...]  # in output order
    model: Model
    preprocessing: Preprocessing
    calibration: Calibration
    # Execution provider → precision → largest difference of a golden logit under which a version may serve; without one
    # it may not. 'tf32' (fp32 with 10-bit mantissas in products, on CUDA only) is off where it has no tolerance.
    tolerances: dict[str, dict[str, float]]
    metrics: Metrics
    provenance: Provenance
    reference: Reference
    files: dict[str, str]  # every other file of the bundle → SHA-256
    gate: Verdict | None = field(default=None, metadata=schema.ADDED)  # None where nothing was compared
    variants: tuple[Variant, ...] = field(default=(), metadata=schema.ADDED)

    def __post_init__(self) -> None:
        if not valid_name(self.name):
            raise ValueError(f"a name like 'flowers' (a-z, 0-9, '.', '_', '-'; at most 64), got {self.name!r}")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels) or not all(self.labels):
            raise ValueError(f"two or more different labels, got {list(self.labels)}")
        if max(map(len, self.labels)) > _MAX_TEXT:
            raise ValueError(f"labels of at most {_MAX_TEXT} characters, got one of {max(map(len, self.labels)):,}")
        if self.model.file not in self.files:
            raise ValueError(f"the model file '{self.model.file}' among files, got {sorted(self.files)}")
        for file, digest in self.files.items():
            if not _FILE.fullmatch(file) or file == "manifest.json" or not _SHA256.fullmatch(digest):
                raise ValueError(f"plain file names with SHA-256 digests, got {file!r}: {digest!r}")
        for provider, tolerances in self.tolerances.items():
            _check_tolerances(provider, tolerances)
        self._check_variants()

    def variant(self, precision: str) -> Variant | None:
        """The model in this precision beside the primary one, if there is one."""
        return next((variant for variant in self.variants if variant.precision == precision), None)

    def file_of(self, precision: str) -> str:
        """The file that is loaded to compute in a precision: the primary model's where no variant has it."""
        variant = self.variant(precision)
        return self.model.file if variant is None else variant.file

    def to_json(self) -> str:
        """The text of `manifest.json`, its own digest filled in."""
        record = {**dataclasses.asdict(self), "manifest_sha256": ""}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return text.replace(_DIGEST_LINE.format(""), _DIGEST_LINE.format(_sha256(text)))

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read and check `manifest.json`. Raises `ManifestInvalid`."""
        record: Any = schema.parse(text)
        if not isinstance(record, dict):
            raise ManifestInvalid("manifest.json", record, "an object")
        _check_digest(text, record.pop("manifest_sha256", None))
        version = record.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestInvalid("schema_version", version, f"{SCHEMA_VERSION}, the one that this Anther reads")
        return schema.read(cls, record)

    def _check_variants(self) -> None:
        files = [self.model.file, *(variant.file for variant in self.variants)]
        if len(set(files)) != len(files) or not self.files.keys() >= set(files):
            raise ValueError(f"variants in files of their own among files, got {files}")
        precisions = [variant.precision for variant in self.variants]
        if len(set(precisions)) != len(precisions):
            raise ValueError(f"one variant for a precision, got {', '.join(precisions)}")


def _check_tolerances(provider: str, tolerances: dict[str, float]) -> None:
    known = (*get_args(PrimaryPrecision), *get_args(VariantPrecision), *((TF32,) if provider == CUDA else ()))
    for precision, tolerance in tolerances.items():
        if precision not in known:
            raise ValueError(f"tolerances of {provider} for {', '.join(known)}, got one for {precision!r}")
        if not 0 < tolerance < math.inf:
            raise ValueError(f"a finite tolerance over 0 for {precision} on {provider}, got {tolerance}")


def _check_digest(text: str, digest: Any) -> None:
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ManifestInvalid("manifest_sha256", digest, "a SHA-256 digest of 64 hexadecimal digits")
    blank = text.replace(_DIGEST_LINE.format(digest), _DIGEST_LINE.format(""))
    if _sha256(blank) != digest:
        raise ManifestInvalid("manifest_sha256", digest, f"{_sha256(blank)}: the file was changed after publishing")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
