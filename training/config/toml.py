"""A recipe as a TOML file: read with a sentence for every mistake, written with a sentence on every setting.

Keys are the recipe's fields, with underscores or dashes; they may stand alone or in the table of their group.
"""

import dataclasses
import difflib
import json
import math
import textwrap
import tomllib
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from training.config.fields import check, span
from training.config.recipe import GROUPS, Recipe, Scalar, group_of
from training.errors import ConfigInvalid, RecipeInvalid

_FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
_KINDS = typing.get_type_hints(Recipe)
_WIDTH = 110


def read(path: Path) -> dict[str, Scalar]:
    """Field → value of what the file sets; fields must still be checked against each other, by `Recipe`.

    Raises `ConfigInvalid` with the key, what was found, and the nearest right key or what was expected.
    """
    found: dict[str, Scalar] = {}
    for table, key, value in _entries(_parse(path), path):
        name = _known(key, _FIELDS, path, "a key")
        if table is not None and table != group_of(name):
            raise ConfigInvalid(path, f"'{key}' stands in [{table}], but belongs in [{group_of(name)}]")
        if name in found:
            raise ConfigInvalid(path, f"'{name}' is set twice; keep one of the two")
        try:
            check(_FIELDS[name], _KINDS[name], value)
        except RecipeInvalid as exc:
            raise ConfigInvalid(path, str(exc)) from exc
        found[name] = value
    return found


def write(recipe: Recipe) -> str:
    """All settings by group, each after its meaning; `read` gives the same recipe again."""
    values = recipe.record()
    lines = ["# Every setting of a training. Start another one from it with: anther train --config FILE"]
    for name, group in GROUPS.items():
        lines += ["", f"[{name}]"]
        for field in dataclasses.fields(group):
            lines += textwrap.wrap(_meaning(field), _WIDTH, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"{field.name} = {json.dumps(values[field.name])}")  # of scalars, JSON is TOML
    return "\n".join(lines) + "\n"


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigInvalid(path, f"it cannot be read ({exc.strerror})") from exc
    except ValueError as exc:  # not TOML, or not even UTF-8
        raise ConfigInvalid(path, f"it is not TOML ({exc})") from exc


def _entries(document: dict[str, Any], path: Path) -> Iterator[tuple[str | None, str, Any]]:
    """Table, key and value of each setting; the table is None for one that stands alone."""
    for key, value in document.items():
        if isinstance(value, dict):
            table = _known(key, GROUPS, path, "a table")
            yield from ((table, inner, setting) for inner, setting in value.items())
        else:
            yield None, key, value


def _known(key: str, names: Iterable[str], path: Path, what: str) -> str:
    name = key.replace("-", "_")
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, 1)
    hint = f"did you mean '{near[0]}'?" if near else "`anther train --help` lists all"
    raise ConfigInvalid(path, f"'{key}' is not {what} of the recipe; {hint}")


def _meaning(field: "dataclasses.Field[Any]") -> str:
    text: str = field.metadata["text"]
    kind = _KINDS[field.name]
    if typing.get_origin(kind) is Literal:
        return f"{text} One of {', '.join(typing.get_args(kind))}."
    low, high = field.metadata["low"], field.metadata["high"]
    return text if low == -math.inf else f"{text} {span(low, high).capitalize()}."
