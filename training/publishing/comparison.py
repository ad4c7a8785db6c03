"""The photos on which two bundles can be compared fairly, and the answers of each, from its own pixels and graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle.manifest import Manifest
from bundle.repository import Bundle
from bundle.verdict import Side
from training.dataset.data import Photo, read_photo
from training.dataset.split import Split, place
from training.evaluation.metrics import calibration_error, negative_log_likelihood
from training.inference import onnx_runtime, speed
from training.inference.batches import BatchInference, Infer

MIN_PHOTOS = 20  # fewer photos say next to nothing


@dataclass(frozen=True)
class ComparablePhotos:
    """The photos of a test split that are left, and remarks on the choice."""

    photos: tuple[Photo, ...]
    remarks: tuple[str, ...] = ()


def comparable_photos(
    test: Sequence[Photo], seed: int, champion: Manifest, learned_from: Split | None
) -> ComparablePhotos:
    """Leave out what the champion trained on or was chosen by, as far as that can be known.

    A photo's part follows from its content and the split's seed alone. So with equal seeds the whole test split is new
    to the champion too; with different ones, what the champion's seed would put into its own test split is surely new.
    `learned_from` is the champion's split where its run is still there: then it is known photo by photo.
    """
    known = tuple(photo for photo in test if photo.label in champion.labels)
    theirs = champion.provenance.split_seed
    if learned_from is not None:
        seen = {photo.digest for photo in learned_from.photos if photo.part != "test"}
        new = tuple(photo for photo in known if photo.digest not in seen)
    else:
        new = tuple(photo for photo in known if theirs == seed or place(photo.digest, theirs) == "test")
    if len(new) == len(known):
        return ComparablePhotos(known)
    why = f"the champion was split by seed {theirs}, this version by {seed}"
    if len(new) >= MIN_PHOTOS:
        return ComparablePhotos(new, (f"{why}: compared only on photos that are new to both",))
    return ComparablePhotos(
        known, (f"{why}: the champion may have trained on some of these photos, which flatters it",)
    )


Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

_TIMED_PHOTOS = 8  # whose time is taken


@dataclass(frozen=True)
class Comparison:
    """Row i belongs to photo i. Columns are the labels of either version; what a version does not know gets 0."""

    labels: tuple[str, ...]
    targets: npt.NDArray[np.int64]  # [N]
    challenger: Floats  # probabilities [N, C]
    champion: Floats
    challenger_figures: Side
    champion_figures: Side

    @property
    def challenger_right(self) -> Bools:
        right: Bools = self.challenger.argmax(1) == self.targets
        return right

    @property
    def champion_right(self) -> Bools:
        right: Bools = self.champion.argmax(1) == self.targets
        return right


def compare(challenger: Bundle, champion: Bundle, photos: Sequence[Photo], inference: BatchInference) -> Comparison:
    """Answer all `photos` (at least one, of labels that both know) with both. Raises `PhotoChanged`."""
    labels = tuple(dict.fromkeys((*challenger.manifest.labels, *champion.manifest.labels)))
    targets = np.array([labels.index(photo.label) for photo in photos])
    bundles = (challenger, champion)
    models = [bundle.read(bundle.manifest.model.file) for bundle in bundles]
    running = [onnx_runtime.infer(model, "probabilities") for model in models]
    ours, theirs = (
        _answers(bundle, infer, labels, photos, inference) for bundle, infer in zip(bundles, running, strict=True)
    )
    times = _times(bundles, running, [read_photo(inference.root, photo) for photo in photos[:_TIMED_PHOTOS]])
    figures = (
        _figures(probabilities, targets, len(model), time)
        for probabilities, model, time in zip((ours, theirs), models, times, strict=True)
    )
    return Comparison(labels, targets, ours, theirs, *figures)


def _answers(
    bundle: Bundle, infer: Infer, labels: tuple[str, ...], photos: Sequence[Photo], inference: BatchInference
) -> Floats:
    own = inference.run(photos, bundle.manifest.preprocessing, infer, f"Asking {_name(bundle)}").outputs
    wide = np.zeros((len(photos), len(labels)), own.dtype)
    wide[:, [labels.index(label) for label in bundle.manifest.labels]] = own
    return wide


def _times(bundles: Sequence[Bundle], running: Sequence[Infer], photos: Sequence[bytes]) -> tuple[float, float]:
    def answer(bundle: Bundle, infer: Infer) -> Callable[[bytes], object]:
        return lambda photo: infer(bundle.manifest.preprocessing(photo)[None])

    first, second = (answer(bundle, infer) for bundle, infer in zip(bundles, running, strict=True))
    return speed.compare(first, second, photos)


def _figures(probabilities: Floats, targets: npt.NDArray[np.int64], size: int, time: float) -> Side:
    return Side(
        top1=float((probabilities.argmax(1) == targets).mean()),
        negative_log_likelihood=negative_log_likelihood(probabilities, targets),
        expected_calibration_error=calibration_error(probabilities, targets),
        model_bytes=size,
        ms_per_picture=time,
    )


def _name(bundle: Bundle) -> str:
    return f"{bundle.name}/{bundle.version}" if bundle.version else "the new version"
