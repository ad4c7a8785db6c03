"""What people import from `anther`: everything is described, and nothing of the wire is seen."""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

import anther

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/client.md").read_text()
PUBLIC = [getattr(anther, name) for name in anther.__all__]


def hints(kind: Any) -> Iterator[Any]:
    """The types of a class's fields, and what its methods and properties return."""
    yield from typing.get_type_hints(kind).values()
    for name, member in inspect.getmembers(kind):
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function) and (not name.startswith("_") or name in ("__enter__", "__aenter__")):
            namespace = importlib.import_module(function.__module__).__dict__
            yield typing.get_type_hints(function, namespace).get("return")


def reached(found: Any, seen: set[Any]) -> set[Any]:
    """All classes that lie in a type, in its arguments, and in the fields and answers of ours among them."""
    for part in (found, *typing.get_args(found)):
        if part is not found:
            reached(part, seen)
        elif inspect.isclass(part) and part not in seen:
            seen.add(part)
            if part.__module__.startswith("anther"):
                for hint in hints(part):
                    reached(hint, seen)
    return seen


@pytest.mark.parametrize("name", anther.__all__)
def test_each_public_name_is_described_and_has_a_docstring(name: str) -> None:
    assert f"## {name}\n" in PAGE or f"**{name}**" in PAGE
    assert getattr(anther, name).__doc__


@pytest.mark.parametrize("kind", [kind for kind in PUBLIC if dataclasses.is_dataclass(kind)])
def test_each_field_of_a_record_is_described(kind: Any) -> None:
    paragraph = PAGE.partition(f"**{kind.__name__}**")[2].partition("\n\n")[0]
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in paragraph] == []


@pytest.mark.parametrize("kind", [anther.Client, anther.AsyncClient])
def test_each_method_of_a_client_is_described(kind: Any) -> None:
    methods = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
    assert [name for name in methods if f"`{name}(" not in PAGE and f"`{name}`" not in PAGE] == []
    assert set(methods) == {name for name, _ in inspect.getmembers(anther.Client) if not name.startswith("_")}


@pytest.mark.parametrize("kind", PUBLIC)
def test_no_method_takes_more_than_six_arguments(kind: Any) -> None:
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("__"):
            assert len(inspect.signature(function).parameters) <= 7, name  # with self


def test_no_message_of_the_wire_is_reached_from_the_public_names() -> None:
    seen: set[Any] = set()
    for kind in PUBLIC:
        reached(kind, seen)
    assert {anther.Prediction, anther.ModelMetrics, anther.CallFailed, float} <= seen
    assert [kind for kind in seen if issubclass(kind, Message)] == []


def test_a_message_in_an_answer_would_be_found() -> None:
    """The test above can fail."""
    from anther.v1.classifier_pb2 import ModelDescription

    class Leaky:
        def models(self) -> list[ModelDescription]: ...

    Leaky.__module__ = __name__
    found = {part for hint in hints(Leaky) for part in reached(hint, set())}
    assert any(issubclass(kind, Message) for kind in found)


def test_dir_lists_the_public_names() -> None:
    assert set(anther.__all__) <= set(dir(anther))
