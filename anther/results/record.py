"""One photo's result as a record with the same keys whatever happened; JSON lines are made of it."""

import json
from typing import Any

from anther.client.answers import Classification
from anther.client.call_failed import CallFailed

Outcome = Classification | CallFailed

_NOTHING: dict[str, Any] = {"model": None, "version": None, "provider": None, "confident": None, "predictions": []}


def record(photo: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, CallFailed):
        error = {"code": outcome.code, "reason": outcome.reason, "message": outcome.message}
        return {"photo": photo, **_NOTHING, "error": error}
    return {
        "photo": photo,
        "model": outcome.model,
        "version": outcome.version,
        "provider": outcome.provider,
        "confident": outcome.confident,
        "predictions": [
            {"label": found.label, "index": found.index, "probability": found.probability}
            for found in outcome.predictions
        ],
        "error": None,
    }


def json_line(photo: str, outcome: Outcome) -> str:
    """ASCII, without a line's end: it takes any file name through any locale."""
    return json.dumps(record(photo, outcome))
