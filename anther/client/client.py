"""The Python client: send pictures, get ranked classes, and errors with their reason."""

from collections.abc import Callable, Generator, Hashable, Iterable, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from anther.client.answers import Classification, Explanation, Prediction, classification_of, explanation_of
from anther.client.call_failed import CallFailed, from_rpc, unreadable
from anther.client.exchange import WINDOW, Exchange
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub

__all__ = ["DEFAULT_TARGET", "CallFailed", "Classification", "Client", "Explanation", "Prediction"]

DEFAULT_TARGET = "localhost:8001"
_LOCAL = ("localhost", "127.", "[::1]")  # never asked for through the `http_proxy` of the environment

Image = bytes | str | Path
AnyImage = TypeVar("AnyImage", bound=Image)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Ask:
    """What is asked of every picture: `label` is 'stable' or 'canary', `top_k` 0 the server's default."""

    model: str = ""
    version: int = 0
    top_k: int = 0
    label: str = ""

    def fields(self, image: Image, request_id: str) -> dict[str, Any]:
        """Of a `ClassifyRequest` or an `ExplainRequest`. Raises `OSError` where `image` is a path."""
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        return {"image": data, "id": request_id, **asdict(self)}


class Client:
    """A connection to one server; safe to share between threads.

    `timeout_s` is how long an answer may take. In the middle of many pictures a server may also go away, such as to be
    replaced: for `patience_s` the unanswered ones are asked again.

    >>> with Client("localhost:8001") as client:
    ...     client.classify("photo.jpg").predictions[0].label
    """

    def __init__(self, target: str = DEFAULT_TARGET, timeout_s: float = 30.0, patience_s: float = 60.0) -> None:
        proxied = not target.startswith(_LOCAL)
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.enable_http_proxy", int(proxied)),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2000),  # by default minutes: a server that is back would go unnoticed
            ],
        )
        self._stub = ImageClassifierStub(self._channel)
        self._target, self._timeout_s, self._patience_s = target, timeout_s, patience_s

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def classify(
        self,
        image: Image,
        model: str = "",
        version: int = 0,
        top_k: int = 0,
        *,
        label: str = "",
        request_id: str = "",
    ) -> Classification:
        """Classify one picture, given as its encoded bytes or as a path. Raises `CallFailed` or `OSError`."""
        fields = Ask(model, version, top_k, label).fields(image, request_id)
        return classification_of(self._call(self._stub.Classify, pb.ClassifyRequest(**fields)))

    def classify_many(
        self, images: Iterable[Image], model: str = "", version: int = 0, top_k: int = 0, *, label: str = ""
    ) -> Generator[Classification | CallFailed, None, None]:
        """Classify pictures, several at once; yields in their order, a failed one as its error.

        `images` may be endless: it is drawn from as answers are taken. Raises `CallFailed` where the server is out of
        reach or silent for too long.
        """
        done: dict[int, Classification | CallFailed] = {}
        following = 0
        numbered = ((number, str(number), image) for number, image in enumerate(images))
        for number, outcome in self._classify(numbered, Ask(model, version, top_k, label), done):
            done[number] = outcome
            while following in done:
                yield done.pop(following)
                following += 1

    def classify_as_ready(
        self,
        images: Iterable[AnyImage],
        model: str = "",
        version: int = 0,
        top_k: int = 0,
        *,
        label: str = "",
        request_id: Callable[[AnyImage], str] | None = None,
    ) -> Generator[tuple[AnyImage, Classification | CallFailed], None, None]:
        """As `classify_many`, but yields each picture with its outcome as soon as it is there, in any order.

        `request_id` gives a picture an id of its own, by which a canary's share is chosen.
        """
        keyed = (
            (image, str(number) if request_id is None else request_id(image), image)
            for number, image in enumerate(images)
        )
        return self._classify(keyed, Ask(model, version, top_k, label), ())

    def explain(
        self,
        image: Image,
        explained: int | str | None = None,
        model: str = "",
        version: int = 0,
        top_k: int = 0,
        *,
        label: str = "",
        request_id: str = "",
    ) -> Explanation:
        """Where in a picture the evidence for a class lies, which is named by index or label; None is the top one.

        Raises `CallFailed`, with the reason NO_EVIDENCE where the model cannot tell, or `OSError`.
        """
        fields = Ask(model, version, top_k, label).fields(image, request_id)
        if explained is not None:
            fields["class_label" if isinstance(explained, str) else "class_index"] = explained
        return explanation_of(self._call(self._stub.Explain, pb.ExplainRequest(**fields)))

    def list_models(self) -> list[pb.ModelDescription]:
        """The models in service. Raises `CallFailed`."""
        return list(self._call(self._stub.ListModels, pb.ListModelsRequest()).models)

    def get_model(self, model: str = "", version: int = 0, *, label: str = "") -> pb.ModelDescription:
        """The one that would answer. Raises `CallFailed`."""
        request = pb.GetModelRequest(model=model, version=version, label=label)
        description: pb.ModelDescription = self._call(self._stub.GetModel, request).model
        return description

    def _classify(
        self, images: Iterable[tuple[Key, str, Image]], ask: Ask, held: Sized
    ) -> Generator[tuple[Key, Classification | CallFailed], None, None]:
        """For (key, id, image). Draws no further image while `held` has as many outcomes as may be in flight."""
        keys: dict[str, Key] = {}
        with Exchange(self._stub, self._target, self._timeout_s, self._patience_s) as exchange:
            for key, request_id, image in images:
                while exchange.in_flight and (exchange.full or len(held) >= WINDOW):
                    yield _received(exchange, keys)
                try:
                    exchange.send(pb.ClassifyRequest(**ask.fields(image, request_id)))
                    keys[request_id] = key
                except OSError as exc:
                    yield key, unreadable(exc)
            while exchange.in_flight:
                yield _received(exchange, keys)

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as exc:
            raise from_rpc(exc, self._target) from exc


def _received(exchange: Exchange, keys: dict[str, Key]) -> tuple[Key, Classification | CallFailed]:
    request_id, outcome = exchange.receive()
    return keys.pop(request_id), outcome if isinstance(outcome, CallFailed) else classification_of(outcome)
