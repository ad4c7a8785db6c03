"""The records of the core as JSON: what `anther classify --json` prints, what explains it, and models in service."""

import base64
from typing import Any

from service.core.answers import Answer, Explanation, Prediction
from service.edge.failures import Failure
from service.versions.loader import LiveModel


def answered(photo: str, answer: Answer) -> dict[str, Any]:
    return {
        "photo": photo,
        "model": answer.model.name,
        "version": answer.model.version,
        "provider": answer.model.engine.provider,
        "confident": answer.confident,
        "predictions": [_prediction(found) for found in answer.predictions],
        "error": None,
    }


def failed(photo: str, failure: Failure) -> dict[str, Any]:
    """The same keys."""
    nothing: dict[str, Any] = {"model": None, "version": None, "provider": None, "confident": None, "predictions": []}
    error = {"code": failure.code, "reason": failure.reason, "message": failure.message}
    return {"photo": photo, **nothing, "error": error}


def explained(photo: str, found: Explanation) -> dict[str, Any]:
    """An answer, and the evidence for one class; `overlay_png` is the PNG file in base64."""
    return {
        **answered(photo, found),
        "explained": _prediction(found.explained),
        "evidence": found.evidence.tolist(),
        "logit": found.logit,
        "overlay_png": base64.b64encode(found.overlay_png).decode("ascii"),
    }


def described(model: LiveModel) -> dict[str, Any]:
    """The fields of the Python client's `ModelDescription`, without the manifest."""
    manifest, metrics = model.bundle.manifest, model.test_metrics
    return {
        "name": model.name,
        "version": model.version,
        "labels": list(manifest.labels),
        "architecture": manifest.model.architecture,
        "precision": model.precision,
        "provider": model.engine.provider,
        "sha256": model.sha256,
        "threshold": manifest.calibration.threshold,
        "metrics": {"photos": metrics.n, "top1": metrics.top1, "top1_interval": list(metrics.top1_interval)},
    }


def _prediction(found: Prediction) -> dict[str, Any]:
    return {"label": found.label, "index": found.index, "probability": found.probability}
