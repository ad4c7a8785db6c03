"""What two bundles answer on the same photos, each through its own preprocessing and graph, as the service runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.repository import Bundle
from bundle.verdict import Side
from training.batch_inference import Infer, Lanes, answer_all
from training.dataset.data import Photo, read_photo
from training.evaluation.metrics import calibration_error, negative_log_likelihood
from training.exporting import onnx_runtime
from training.progress import Reporter
from training.publishing import speed

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]

_PICTURES = 8  # whose time is taken


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


def compare(
    challenger: Bundle, champion: Bundle, root: Path, photos: Sequence[Photo], lanes: Lanes, reporter: Reporter
) -> Comparison:
    """Answer all `photos` (at least one, of labels that both know) with both. Raises `PhotoChanged`."""
    labels = tuple(dict.fromkeys((*challenger.manifest.labels, *champion.manifest.labels)))
    targets = np.array([labels.index(photo.label) for photo in photos])
    bundles = (challenger, champion)
    models = [bundle.read(bundle.manifest.model.file) for bundle in bundles]
    running = [onnx_runtime.infer(model, "probabilities") for model in models]
    ours, theirs = (
        _answers(bundle, infer, labels, root, photos, lanes, reporter)
        for bundle, infer in zip(bundles, running, strict=True)
    )
    times = _times(bundles, running, [read_photo(root, photo) for photo in photos[:_PICTURES]])
    figures = (
        _figures(probabilities, targets, len(model), time)
        for probabilities, model, time in zip((ours, theirs), models, times, strict=True)
    )
    return Comparison(labels, targets, ours, theirs, *figures)


def _answers(
    bundle: Bundle,
    infer: Infer,
    labels: tuple[str, ...],
    root: Path,
    photos: Sequence[Photo],
    lanes: Lanes,
    reporter: Reporter,
) -> Floats:
    what = f"Asking {_name(bundle)}"
    own = answer_all(root, photos, bundle.manifest.preprocessing, infer, lanes, reporter, what).outputs
    wide = np.zeros((len(photos), len(labels)), own.dtype)
    wide[:, [labels.index(label) for label in bundle.manifest.labels]] = own
    return wide


def _times(bundles: Sequence[Bundle], running: Sequence[Infer], pictures: Sequence[bytes]) -> tuple[float, float]:
    def answer(bundle: Bundle, infer: Infer) -> speed.Answer:
        return lambda picture: infer(bundle.manifest.preprocessing(picture)[None])

    first, second = (answer(bundle, infer) for bundle, infer in zip(bundles, running, strict=True))
    return speed.compare(first, second, pictures)


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
