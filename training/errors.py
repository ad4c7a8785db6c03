"""The errors of training as one tree. The message of each leaf is one sentence.

AntherError
└── TrainingError
    ├── DataRefused
    │   ├── DataMissing
    │   ├── NoPhotos
    │   ├── FlatFolder
    │   ├── TableUnusable
    │   ├── OneClass
    │   ├── EmptyClass
    │   ├── TooFewPhotos
    │   ├── LabelConflict
    │   ├── UnknownLabels
    │   └── PhotoChanged
    ├── DownloadFailed
    ├── ArchiveRefused
    ├── FolderTaken
    ├── DiskUnusable
    ├── StoreDamaged
    ├── RecipeInvalid
    ├── ConfigInvalid
    ├── WeightsUnusable
    ├── DeviceUnavailable
    ├── ProcessesUnusable
    ├── LibraryMissing
    ├── RunUnusable
    ├── NothingToEvaluate
    ├── NothingCompared
    ├── OutputTaken
    ├── TrainingDiverged
    ├── VerificationFailed
    ├── QuantizationFailed
    ├── SigningFailed
    ├── RetrainRunning
    └── GateRefused
"""

from collections.abc import Sequence
from pathlib import Path

from anther.errors import AntherError


class TrainingError(AntherError):
    """Root of what training raises on purpose."""


class DataRefused(TrainingError):
    """A folder that cannot be trained on or measured against."""


class DataMissing(DataRefused):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not exist; give a folder with one subfolder of photos per class, or a table", path=path
        )


class NoPhotos(DataRefused):
    def __init__(self, folder: Path, undecodable: int = 0) -> None:
        found = f"only {undecodable} files that cannot be decoded" if undecodable else "no photos"
        super().__init__(
            f"{folder} holds {found}; give a folder with one subfolder of photos per class",
            folder=folder,
            undecodable=undecodable,
        )


class FlatFolder(DataRefused):
    def __init__(self, folder: Path, files: int) -> None:
        super().__init__(
            f"{folder} is flat: {files} files and no subfolder; move the photos into one subfolder per class",
            folder=folder,
            files=files,
        )


class TableUnusable(DataRefused):
    def __init__(self, table: Path, found: str, advice: str) -> None:
        super().__init__(f"table {table}: {found}; {advice}", table=table, found=found)


class OneClass(DataRefused):
    def __init__(self, folder: Path, label: str, inner: Sequence[str]) -> None:
        hint = f"did you mean {folder / label}?" if len(inner) > 1 else "at least two classes are needed"
        super().__init__(f"{folder} has photos of one class only, '{label}'; {hint}", folder=folder, label=label)


class EmptyClass(DataRefused):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} holds no usable photo; add some, or remove the folder", folder=folder)


class TooFewPhotos(DataRefused):
    """Some class would have no photo in some part of the split."""

    def __init__(self, label: str, photos: int, missing: str, seed: int, usable_seed: int | None) -> None:
        hint = (
            "add photos of this class"
            if usable_seed is None
            else f"add photos of this class, or use --split-seed {usable_seed}, with which every part has some"
        )
        super().__init__(
            f"class '{label}' has {photos} usable photos, and split seed {seed} puts none into '{missing}'; {hint}",
            label=label,
            photos=photos,
            missing=missing,
            seed=seed,
        )


class LabelConflict(DataRefused):
    """The same content stands under two labels; only a person can say which one is right."""

    def __init__(self, conflicts: Sequence[Sequence[str]], listed_in: Path) -> None:
        first = " = ".join(conflicts[0])
        super().__init__(
            f"{len(conflicts)} photos stand under more than one label, the first {first}; delete each from the wrong "
            f"folder (all are listed in {listed_in})",
            conflicts=len(conflicts),
            listed_in=listed_in,
        )


class UnknownLabels(DataRefused):
    def __init__(self, folder: Path, unknown: Sequence[str], labels: Sequence[str]) -> None:
        super().__init__(
            f"{folder} has the classes {', '.join(unknown)}, which the model does not know; rename or remove them "
            f"(it knows {', '.join(labels)})",
            folder=folder,
            unknown=",".join(unknown),
        )


class PhotoChanged(DataRefused):
    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"{path} is {found} since the photos were checked; start a new run so that the split is true",
            path=path,
            found=found,
        )


class DownloadFailed(TrainingError):
    def __init__(self, url: str, reason: str, advice: str) -> None:
        super().__init__(f"{url} cannot be downloaded: {reason}; {advice}", url=url, reason=reason)


class ArchiveRefused(TrainingError):
    """An archive that could write outside its folder or without end; nothing of it is kept."""

    def __init__(self, archive: Path, reason: str) -> None:
        super().__init__(
            f"archive {archive.name} is not unpacked: {reason}; get it from a source that you trust",
            archive=archive,
            reason=reason,
        )


class FolderTaken(TrainingError):
    def __init__(self, folder: Path, found: str = "already exists") -> None:
        super().__init__(f"{folder} {found}; give a folder that does not exist yet", folder=folder)


class DiskUnusable(TrainingError):
    def __init__(self, path: Path, reason: str, advice: str) -> None:
        super().__init__(f"{path} cannot be written: {reason}; {advice}", path=path, reason=reason)


class StoreDamaged(TrainingError):
    def __init__(self, path: Path, found: str) -> None:
        super().__init__(f"{path} is {found}; run the command again, which decodes its photos anew", path=path)


class RecipeInvalid(TrainingError):
    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(
            f"recipe field '{field}' is {value!r}; expected {expected}", field=field, value=value, expected=expected
        )


class ConfigInvalid(TrainingError):
    def __init__(self, path: Path, found: str) -> None:
        super().__init__(f"configuration {path}: {found}", path=path, found=found)


class WeightsUnusable(TrainingError):
    def __init__(self, weights: str, reason: str, advice: str) -> None:
        super().__init__(f"weights '{weights}' cannot be used: {reason}; {advice}", weights=weights, reason=reason)


class DeviceUnavailable(TrainingError):
    def __init__(self, device: str, reason: str) -> None:
        super().__init__(
            f"device '{device}' cannot be used: {reason}; use --device auto or --device cpu",
            device=device,
            reason=reason,
        )


class ProcessesUnusable(TrainingError):
    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"several processes cannot train together: {reason}; {advice}", reason=reason)


class LibraryMissing(TrainingError):
    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed; install it with: pip install 'anther[{extra}]'", library=library, extra=extra
        )


class RunUnusable(TrainingError):
    def __init__(self, path: Path, found: str, advice: str) -> None:
        super().__init__(f"run {path}: {found}; {advice}", path=path, found=found)


class NothingToEvaluate(TrainingError):
    def __init__(self, path: Path, found: str, advice: str) -> None:
        super().__init__(f"{path} {found}; {advice}", path=path, found=found)


class NothingCompared(TrainingError):
    def __init__(self, path: Path, found: str, advice: str) -> None:
        super().__init__(f"comparison {path}: {found}; {advice}", path=path, found=found)


class OutputTaken(TrainingError):
    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} already exists; give a folder with --output that does not exist yet", path=path)


class TrainingDiverged(TrainingError):
    def __init__(self, step: int, lr: float) -> None:
        super().__init__(
            f"the loss is no longer a number at step {step}; start again with a peak rate under --lr {lr}",
            step=step,
            lr=lr,
        )


class VerificationFailed(TrainingError):
    """The exported graph does not answer as the trained model does; nothing is published."""

    def __init__(self, photo: str, expected: str, found: str, difference: float, limit: float) -> None:
        super().__init__(
            f"the exported graph is not the trained model: {photo} is '{expected}' for torch and '{found}' for ONNX "
            f"Runtime, the logits differ by {difference:.2e} where {limit:.0e} is allowed; nothing was published, "
            "please report this with the run's folder",
            photo=photo,
            expected=expected,
            found=found,
            difference=difference,
            limit=limit,
        )


class QuantizationFailed(TrainingError):
    """No int8 model can be made of this network."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the network cannot be made int8 ({reason}); export with --no-int8", reason=reason)


class SigningFailed(TrainingError):
    def __init__(self, version: Path, reason: str) -> None:
        super().__init__(f"{version} is not signed: {reason}", version=version, reason=reason)


class RetrainRunning(TrainingError):
    def __init__(self, model: str, holder: str) -> None:
        super().__init__(
            f"'{model}' is being retrained by {holder}; wait until it has ended, or end it", model=model, holder=holder
        )


class GateRefused(TrainingError):
    """The new version must not take the place of the one in service; nothing is published."""

    def __init__(self, model: str, champion: str, reasons: Sequence[str], listed_in: Path) -> None:
        super().__init__(
            f"the new version of '{model}' is not published: {'; '.join(reasons)}. All figures are in {listed_in}; "
            f"{champion} goes on serving",
            model=model,
            champion=champion,
            reasons="; ".join(reasons),
            listed_in=listed_in,
        )
