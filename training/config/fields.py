"""Description, range and validation of a setting."""

import dataclasses
import math
import typing
from typing import Any, Literal

from training.errors import RecipeInvalid


def says(text: str, low: float = -math.inf, high: float = math.inf) -> dict[str, Any]:
    """A field's meaning, which the command line shows, and the closed range that it may lie in."""
    return {"text": text, "low": low, "high": high}


def check(setting: "dataclasses.Field[Any]", kind: Any, value: Any) -> None:
    """Raises `RecipeInvalid` with the field, its value and what was expected."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise RecipeInvalid(setting.name, value, "one of " + ", ".join(choices))
        return
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise RecipeInvalid(
            setting.name, value, {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        )
    low, high = setting.metadata["low"], setting.metadata["high"]
    if not low <= value <= high or value == math.inf:
        raise RecipeInvalid(setting.name, value, span(low, high))


def span(low: float, high: float) -> str:
    """A closed range in words."""
    if high == math.inf:
        return f"at least {low:g}"
    return f"from {low:g} to {high:g}"
