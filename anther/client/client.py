"""The Python client: send images, get ranked classes, and errors with their reason."""

from collections.abc import Callable, Generator, Iterable, Sized
from types import TracebackType
from typing import Unpack

import grpc

from anther.client import calls
from anther.client import target as targets
from anther.client.answers import Classification, Explanation, ModelDescription, classification_of
from anther.client.call_failed import CallFailed, from_rpc, unreadable
from anther.client.calls import DEFAULT_TARGET, AnyImage, Call, Class, ClassifyOptions, Image, InOrder, Key, T, read
from anther.client.connection import Connection
from anther.client.exchange import Exchange
from anther.client.pending import WINDOW
from anther.client.security import Security, TlsOption
from anther.v1.classifier_pb2_grpc import ImageClassifierStub


class Client:
    """A connection to one server; safe to share between threads.

    `timeout_s` is how long an answer may take. In the middle of many images a server may also go away, such as to be
    replaced: for `patience_s` the unanswered ones are asked for again. `tls` is True, the path of an authority's
    certificate, or `Tls`; `token` is what the server's operator gave out. A token goes to another machine under TLS
    alone, unless `tls=False` says that it may be read on its way.

    >>> with Client("localhost:8001") as client:
    ...     client.classify("photo.jpg").predictions[0].label
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
        *,
        tls: TlsOption = None,
        token: str = "",
    ) -> None:
        """Raises `AntherError` for targets, files and tokens of no use, `ValueError` for times that are none."""
        targets.check(target)
        calls.check_times(timeout_s, patience_s)
        security = Security(target, tls, token)
        options = [*calls.channel_options(target), *security.options]
        if security.credentials is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            self._channel = grpc.secure_channel(target, security.credentials, options)
        self._stub = ImageClassifierStub(self._channel)
        self._connection = Connection(target, security.metadata)
        self._timeout_s, self._patience_s = timeout_s, patience_s

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Calls under way, and later ones, raise `CallFailed` with the reason CLIENT_CLOSED."""
        self._connection.close()
        self._channel.close()

    def classify(self, image: Image, *, request_id: str = "", **options: Unpack[ClassifyOptions]) -> Classification:
        """Classify one image, given as its encoded bytes or as a path. Raises `CallFailed` or `OSError`."""
        return self._answer(calls.classify(read(image), request_id, options))

    def classify_many(
        self, images: Iterable[Image], **options: Unpack[ClassifyOptions]
    ) -> Generator[Classification | CallFailed, None, None]:
        """Classify images, several at once; yields in their order, a failed one as its error.

        `images` may be endless: it is drawn from as answers are taken. Raises `CallFailed` where the server is out of
        reach or silent for too long.
        """
        in_order = InOrder[Classification | CallFailed]()
        numbered = ((number, str(number), image) for number, image in enumerate(images))
        for number, outcome in self._classify(numbered, options, in_order):
            yield from in_order.add(number, outcome)

    def classify_as_ready(
        self,
        images: Iterable[AnyImage],
        *,
        request_id: Callable[[AnyImage], str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> Generator[tuple[AnyImage, Classification | CallFailed], None, None]:
        """As `classify_many`, but yields each image with its outcome as soon as it is there, in any order.

        `request_id` gives an image an id of its own, by which a canary's share is chosen.
        """
        keyed = (
            (image, str(number) if request_id is None else request_id(image), image)
            for number, image in enumerate(images)
        )
        return self._classify(keyed, options, ())

    def explain(
        self, image: Image, explained: Class | None = None, *, request_id: str = "", **options: Unpack[ClassifyOptions]
    ) -> Explanation:
        """Where in an image the evidence for a class lies, which is named by index or label; None is the top one.

        Raises `CallFailed`, with the reason NO_EVIDENCE where the model cannot tell, or `OSError`.
        """
        return self._answer(calls.explain(read(image), explained, request_id, options))

    def list_models(self) -> list[ModelDescription]:
        """The models in service, by name. Raises `CallFailed`."""
        return self._answer(calls.list_models())

    def get_model(self, model: str = "", version: int = 0, *, label: str = "") -> ModelDescription:
        """The one that would answer. Raises `CallFailed`."""
        return self._answer(calls.get_model(model, version, label))

    def _classify(
        self, images: Iterable[tuple[Key, str, Image]], options: ClassifyOptions, held: Sized
    ) -> Generator[tuple[Key, Classification | CallFailed], None, None]:
        """For (key, id, image). Draws no further image while `held` has as many outcomes as may be in flight."""
        keys: dict[str, Key] = {}
        with Exchange(self._stub, self._connection, self._timeout_s, self._patience_s) as exchange:
            for key, request_id, image in images:
                while exchange.pending.in_flight and (exchange.pending.full or len(held) >= WINDOW):
                    yield _received(exchange, keys)
                try:
                    exchange.send(calls.classify_request(read(image), request_id, options))
                    keys[request_id] = key
                except OSError as exc:
                    yield key, unreadable(exc)
            while exchange.pending.in_flight:
                yield _received(exchange, keys)

    def _answer(self, call: Call[T]) -> T:
        try:
            with self._connection:
                ask = getattr(self._stub, call.method)
                answer = ask(call.request, timeout=self._timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as exc:
            raise from_rpc(exc, self._connection.target) from exc
        return call.record_of(answer)


def _received(exchange: Exchange, keys: dict[str, Key]) -> tuple[Key, Classification | CallFailed]:
    request_id, outcome = exchange.receive()
    return keys.pop(request_id), outcome if isinstance(outcome, CallFailed) else classification_of(outcome)
