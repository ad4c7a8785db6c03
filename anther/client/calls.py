"""What both clients ask, and how: images, options, calls with the record that answers them, a channel's settings."""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

from anther.client.answers import (
    Classification,
    Explanation,
    ModelDescription,
    classification_of,
    description_of,
    explanation_of,
)
from anther.client.target import loopback
from anther.v1 import classifier_pb2 as pb

DEFAULT_TARGET = "localhost:8001"

Image = bytes | str | Path
Class = int | str  # by its index or its label
AnyImage = TypeVar("AnyImage", bound=Image)
Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


class ClassifyOptions(TypedDict, total=False):
    """Which model answers and with how many predictions; whatever is left out is the server's choice.

    `label` is 'stable' or 'canary'; `version` 0 is the one in service; `top_k` 0 stands for 5.
    """

    model: str
    version: int
    label: str
    top_k: int


def read(image: Image) -> bytes:
    """Its encoded bytes. Raises `OSError` where it is a path."""
    return image if isinstance(image, bytes) else Path(image).read_bytes()


@dataclass(frozen=True)
class Call(Generic[T]):
    """A method of the service, what it is sent, and the record that its answer becomes."""

    method: str
    request: Any
    record_of: Callable[[Any], T]


def classify_request(image: bytes, request_id: str, options: ClassifyOptions) -> pb.ClassifyRequest:
    return _request(pb.ClassifyRequest, image=image, id=request_id, **_checked(options))


def classify(image: bytes, request_id: str, options: ClassifyOptions) -> Call[Classification]:
    return Call("Classify", classify_request(image, request_id, options), classification_of)


def explain(image: bytes, explained: Class | None, request_id: str, options: ClassifyOptions) -> Call[Explanation]:
    fields = _checked(options)
    if explained is not None:
        fields["class_label" if isinstance(explained, str) else "class_index"] = explained
    return Call("Explain", _request(pb.ExplainRequest, image=image, id=request_id, **fields), explanation_of)


def list_models() -> Call[list[ModelDescription]]:
    return Call("ListModels", pb.ListModelsRequest(), lambda answer: list(map(description_of, answer.models)))


def get_model(model: str, version: int, label: str) -> Call[ModelDescription]:
    request = _request(pb.GetModelRequest, model=model, version=version, label=label)
    return Call("GetModel", request, lambda answer: description_of(answer.model))


def check_times(timeout_s: float, patience_s: float) -> None:
    """Raises `ValueError` for what is no time to wait."""
    if not timeout_s > 0:
        raise ValueError(f"timeout_s should be over 0 seconds, not {timeout_s}")
    if not patience_s >= 0:
        raise ValueError(f"patience_s should be 0 seconds or more, not {patience_s}")


def channel_options(target: str) -> list[tuple[str, int]]:
    return [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", int(not loopback(target))),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),  # by default minutes: a server that is back would go unnoticed
        ("grpc.use_local_subchannel_pool", 1),  # else the clients of a process share a connection, and so one worker
    ]


class InOrder(Generic[T]):
    """Holds the outcomes that wait for one before them."""

    def __init__(self) -> None:
        self._held: dict[int, T] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, number: int, outcome: T) -> Iterator[T]:
        """Those that are due now."""
        self._held[number] = outcome
        while self._next in self._held:
            yield self._held.pop(self._next)
            self._next += 1


def _request(kind: Callable[..., T], **fields: Any) -> T:
    """Raises `TypeError` and `ValueError` with the name of the field, which protobuf does not tell."""
    try:
        return kind(**fields)
    except (TypeError, ValueError) as exc:
        wrong = min(name for name in fields if not _fits(kind, name, fields[name]))
        kind_of_error = TypeError if isinstance(exc, TypeError) else ValueError  # its own may want other arguments
        raise kind_of_error(f"{wrong} cannot be {fields[wrong]!r:.80}: {exc}") from exc


def _fits(kind: Callable[..., Any], name: str, value: object) -> bool:
    try:
        kind(**{name: value})
    except (TypeError, ValueError):
        return False
    return True


def _checked(options: ClassifyOptions) -> dict[str, Any]:
    """Raises `TypeError` for a name that is no option."""
    unknown = options.keys() - ClassifyOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"'{min(unknown)}' is no option; there are {', '.join(ClassifyOptions.__annotations__)}")
    return dict(options)
