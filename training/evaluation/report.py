"""The report of a model as one self-contained HTML page. The run's copy also shows the worst mistakes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from bundle.manifest import Manifest, Metrics
from training.dataset.data import read_photo
from training.evaluation import charts
from training.inference.batches import Floats
from training.runs.context import RunContext
from training.runs.run import Run

_MAX_MISTAKES = 48
_THUMBNAIL = 160  # pixels


@dataclass(frozen=True)
class Mistake:
    """A test photo that is answered wrongly, the surest first."""

    path: str
    true: str
    answered: str
    confidence: float
    thumbnail: str  # data URI


def facts(run: Run, manifest: Manifest) -> dict[str, Any]:
    """Everything that the template shows."""
    epochs, trials = run.rows("curves.jsonl"), run.rows("head.jsonl")
    metrics = manifest.metrics
    return {
        "manifest": manifest,
        "epochs": epochs,
        "accuracy_chart": _accuracy_chart(epochs) if len(epochs) > 1 else None,
        "loss_chart": _loss_chart(epochs) if len(epochs) > 1 else None,
        "trials": trials,
        "reliability_chart": _reliability_chart(metrics),
        "risk_chart": _risk_chart(metrics),
        "corruptions": run.evaluation().corruptions,
        "largest": max(max(row) for row in metrics.confusion),
        "seconds": run.seconds(),
    }


def render(page: dict[str, Any], mistakes: Sequence[Mistake] = ()) -> str:
    """HTML; every text from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.evaluation", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html").render(**page, mistakes=mistakes)


def mistakes(probabilities: Floats, context: RunContext) -> list[Mistake]:
    """Wrong answers on the test split with thumbnails, at most 48."""
    photos, targets = context.photos("test"), context.targets("test").numpy()
    answered, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(answered != targets)
    surest = wrong[np.argsort(-confidence[wrong])][:_MAX_MISTAKES]
    labels = context.split.labels
    return [
        Mistake(
            photos[index].path,
            photos[index].label,
            labels[answered[index]],
            float(confidence[index]),
            data_uri(Image.fromarray(context.preprocessing(read_photo(context.root, photos[index])))),
        )
        for index in surest
    ]


def _accuracy_chart(epochs: list[dict[str, Any]]) -> Markup:
    points = [(row["epoch"], row["val_top1"]) for row in epochs]
    low = min(value for _, value in points)
    return charts.lines({"validation": points}, "epoch", (max(np.floor(low * 20) / 20 - 0.05, 0.0), 1.0))


def _loss_chart(epochs: list[dict[str, Any]]) -> Markup:
    series = {
        "training": [(row["epoch"], row["train_loss"]) for row in epochs[1:]],  # the head's loss is another one
        "validation": [(row["epoch"], row["val_loss"]) for row in epochs],
    }
    top = max(value for points in series.values() for _, value in points)
    return charts.lines(series, "epoch", (0.0, top * 1.15))


def _reliability_chart(metrics: Metrics) -> Markup:
    before = metrics.uncalibrated
    return charts.reliability(
        {"calibrated": metrics.reliability, **({} if before is None else {"before": before.reliability})}
    )


def _risk_chart(metrics: Metrics) -> Markup:
    found = metrics.confident
    chosen = None if found is None or not found.coverage else (found.coverage, 1 - found.precision)
    return charts.risk_coverage(metrics.risk_coverage, chosen)


def data_uri(image: Image.Image) -> str:
    """A JPEG of at most 160 pixels a side, as a `data:` address, so that a page carries it within itself."""
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
