"""Anther's Python client. `Client` asks a running server; its answers are typed records."""

import importlib
from typing import TYPE_CHECKING, Any

from anther.errors import AntherError

if TYPE_CHECKING:
    from anther.client.client import CallFailed, Classification, Client, Explanation, Prediction

__all__ = ["AntherError", "CallFailed", "Classification", "Client", "Explanation", "Prediction"]

_CLIENT = frozenset(__all__) - {"AntherError"}


def __getattr__(name: str) -> Any:
    """The client's names, imported when first asked for: gRPC takes a tenth of a second to load."""
    if name in _CLIENT:
        return getattr(importlib.import_module("anther.client.client"), name)
    raise AttributeError(f"module 'anther' has no attribute '{name}'")
