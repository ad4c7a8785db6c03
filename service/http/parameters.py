"""What a request to /v1 asks, read from its query and its headers."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import QueryParams

from service.core.call import Call
from service.core.requests import LONGEST_ID, ImageRequest, Target
from service.errors import InvalidArgument
from service.http.exchange import TIMEOUT, Request

T = TypeVar("T")

REQUEST_ID = "x-request-id"
OF_MODEL = frozenset({"version", "label"})
OF_IMAGE = frozenset({"model", "top_k", "id", *OF_MODEL})
OF_CLASS = frozenset({"class_label", "class_index"})
_SHOWN = 100  # characters of what is refused
_VERSIONS, _INT32 = 10**9, 2**31 - 1
_LABELS = ("stable", "canary")


@dataclass(frozen=True, slots=True)
class Question:
    """`photo` is the name of the image's file, where the client gave one; `explained` the class to explain."""

    model: str = ""
    version: int = 0
    label: str = ""
    id: str = ""
    top_k: int = 0
    explained: int | str | None = None
    image: bytes = b""
    photo: str = ""

    @property
    def target(self) -> Target:
        return Target(self.model, self.version, self.label, self.id)

    def image_request(self, call: Call) -> ImageRequest:
        return ImageRequest(self.image, self.top_k, call.deadline, id=self.id, caller=call.caller.key, trace=call.trace)


def question(request: Request, known: Collection[str]) -> Question:
    """Raises `InvalidArgument`, also for a parameter that is neither known nor `timeout`, or that is given twice."""
    query = request.query
    _check_names(query, {*known, TIMEOUT})
    if query.keys() >= OF_CLASS:
        raise InvalidArgument("class_index", query["class_index"], "none beside 'class_label'")
    index = None if "class_index" not in query else _read(query, "class_index", _whole(0, _INT32), "a class's position")
    return Question(
        query.get("model", ""),
        _read(query, "version", _whole(0, _VERSIONS), "0 (for the one in service) or a version's number") or 0,
        _read(query, "label", _one_of(_LABELS), f"one of {', '.join(_LABELS)}") or "",
        _id(query.get("id", request.headers.get(REQUEST_ID, ""))),
        _read(query, "top_k", _whole(0, _INT32), "0 (for the default) or more") or 0,
        query.get("class_label") if index is None else index,
    )


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Which of the media types a header `Accept` asks for most; the first where it does not say (RFC 9110, 12.5.1)."""
    ranges = [_range(each) for each in accept.split(",") if each.strip()]

    def quality(kind: str) -> float:
        matching = [
            (len(name), value) for name, value in ranges if name in {kind, kind.partition("/")[0] + "/*", "*/*"}
        ]
        return max(matching, default=(0, 0.0))[1]  # what names the type more exactly counts

    return max(offered, key=quality)


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    given = next((part[2:] for part in parameters if part.startswith("q=")), "1")
    return name, float(given) if re.fullmatch(r"[01](\.[0-9]{0,3})?", given) else 0.0


def _check_names(query: QueryParams, known: Collection[str]) -> None:
    names = [name for name, _ in query.multi_items()]
    for name in names:
        if name not in known:
            raise InvalidArgument("parameter", name[:_SHOWN], f"one of {', '.join(sorted(known))}")
        if names.count(name) > 1:
            raise InvalidArgument(name, "given twice", "one value")


def _read(query: QueryParams, name: str, parse: Callable[[str], T | None], expected: str) -> T | None:
    """None where it is not given."""
    if name not in query:
        return None
    value = parse(query[name])
    if value is None:
        raise InvalidArgument(name, query[name][:_SHOWN], expected)
    return value


def _whole(least: int, most: int) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        value = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else -1
        return value if least <= value <= most else None

    return parse


def _one_of(values: tuple[str, ...]) -> Callable[[str], str | None]:
    return lambda text: text if text in values else None


def _id(text: str) -> str:
    """It comes back in a header, so it holds what a header may hold."""
    if len(text) > LONGEST_ID or not re.fullmatch(r"[!-~]*", text):
        raise InvalidArgument("id", text[:_SHOWN], f"at most {LONGEST_ID:,} visible ASCII characters")
    return text
