"""JSON to frozen dataclasses and back, with errors that name the field, its value and what was expected.

A field marked `ADDED` may be missing: that is how a record grows and old ones stay readable.
"""

import collections
import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal, TypeVar

from bundle.errors import ManifestInvalid

T = TypeVar("T")

ADDED = {"added": True}  # metadata of a field that older records lack; it must have a default
WHOLE = "manifest.json"  # the field under which a document as a whole is refused


def parse(text: str) -> Any:
    """JSON text to plain values. Refuses NaN, infinities and a key given twice, which `json` alone lets through."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as exc:
        raise ManifestInvalid(WHOLE, text[:60], f"a JSON document ({exc})") from exc


def read(kind: type[T], value: Any, field: str = "") -> T:
    """Build `kind` (a dataclass, or any type that its fields may have) from a plain JSON value."""
    return typing.cast("T", _read(kind, value, field))


def _read(kind: Any, value: Any, field: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, field)
    if origin is tuple:
        return _read_tuple(arguments, value, field)
    if origin is dict:
        items = _expect(dict, value, field, "an object").items()
        return {_read(str, key, field): _read(arguments[1], item, f"{field}.{key}") for key, item in items}
    if origin is Literal:
        return _read_literal(arguments, value, field)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, field)
    return _read_scalar(kind, value, field)


def _read_dataclass(kind: Any, value: Any, field: str) -> Any:
    _expect(dict, value, field or WHOLE, "an object")
    hints = typing.get_type_hints(kind)
    prefix = f"{field}." if field else ""
    for key in value:
        if key not in hints:
            raise ManifestInvalid(prefix + key, value[key], f"one of the fields {', '.join(hints)}")
    for setting in dataclasses.fields(kind):
        if setting.name not in value and not setting.metadata.get("added"):
            raise ManifestInvalid(prefix + setting.name, None, "a value: the field is missing")
    found = {key: _read(hint, value[key], prefix + key) for key, hint in hints.items() if key in value}
    try:
        return kind(**found)
    except ValueError as exc:
        raise ManifestInvalid(field or WHOLE, value, str(exc)) from exc


def _read_tuple(arguments: tuple[Any, ...], value: Any, field: str) -> tuple[Any, ...]:
    _expect(list, value, field, "a list")
    if arguments[-1] is Ellipsis:
        return tuple(_read(arguments[0], item, f"{field}[{index}]") for index, item in enumerate(value))
    if len(value) != len(arguments):
        raise ManifestInvalid(field, value, f"a list of {len(arguments)} values")
    return tuple(
        _read(kind, item, f"{field}[{index}]") for index, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _read_literal(allowed: tuple[Any, ...], value: Any, field: str) -> Any:
    for choice in allowed:
        if type(value) is type(choice) and value == choice:
            return choice
    raise ManifestInvalid(field, value, " or ".join(repr(choice) for choice in allowed))


def _read_union(kinds: tuple[Any, ...], value: Any, field: str) -> Any:
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            return _read_dataclass(kind, value, field)  # so that its own field is named, not the whole
        try:
            return _read(kind, value, field)
        except ManifestInvalid:
            continue
    raise ManifestInvalid(field, value, " or ".join(_name(kind) for kind in kinds))


def _read_scalar(kind: Any, value: Any, field: str) -> Any:
    if kind is float and type(value) is int and abs(value) < 1e300:  # a larger one would overflow
        value = float(value)
    if type(value) is not kind:  # `isinstance` would take True for 1
        raise ManifestInvalid(field, value, _name(kind))
    if kind is float and not math.isfinite(value):
        raise ManifestInvalid(field, value, "a finite number")
    if kind is str and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ManifestInvalid(field, value, "a text of whole characters, without lone surrogates")
    return value


def _expect(kind: type, value: Any, field: str, expected: str) -> Any:
    if not isinstance(value, kind):
        raise ManifestInvalid(field, value, expected)
    return value


def _name(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return f"an object with the fields {', '.join(item.name for item in dataclasses.fields(kind))}"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        times = collections.Counter(key for key, _ in pairs)  # there may be millions, so each is looked at once
        raise ValueError(f"the key '{times.most_common(1)[0][0]:.60}' stands twice")
    return found
