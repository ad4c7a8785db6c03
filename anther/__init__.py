"""Anther's Python client. `Client` and `AsyncClient` ask a running server; their answers are typed records."""

import importlib
from typing import TYPE_CHECKING, Any

from anther.errors import AntherError

if TYPE_CHECKING:
    from anther.client.answers import Classification, Explanation, ModelDescription, ModelMetrics, Prediction
    from anther.client.async_client import AsyncClient
    from anther.client.call_failed import CallFailed
    from anther.client.calls import ClassifyOptions
    from anther.client.client import Client
    from anther.client.security import Tls

__all__ = [
    "AntherError",
    "AsyncClient",
    "CallFailed",
    "Classification",
    "ClassifyOptions",
    "Client",
    "Explanation",
    "ModelDescription",
    "ModelMetrics",
    "Prediction",
    "Tls",
]

_MODULES = {
    "AsyncClient": "async_client",
    "CallFailed": "call_failed",
    "Classification": "answers",
    "ClassifyOptions": "calls",
    "Client": "client",
    "Explanation": "answers",
    "ModelDescription": "answers",
    "ModelMetrics": "answers",
    "Prediction": "answers",
    "Tls": "security",
}


def __getattr__(name: str) -> Any:
    """The client's names, imported when first asked for: gRPC takes a tenth of a second to load."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"anther.client.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'anther' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
