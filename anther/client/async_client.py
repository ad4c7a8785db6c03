"""`anther.client.client` for programs with an event loop: the same calls, to be awaited."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from functools import cached_property
from types import TracebackType
from typing import Any, TypeVar, Unpack

import grpc

from anther.client.answers import (
    Classification,
    Explanation,
    ModelDescription,
    classification_of,
    description_of,
    explanation_of,
)
from anther.client.async_exchange import AsyncExchange
from anther.client.call_failed import CallFailed, from_rpc, unreadable
from anther.client.pending import WINDOW
from anther.client.requests import (
    DEFAULT_TARGET,
    AnyImage,
    ClassifyOptions,
    Image,
    InOrder,
    Key,
    channel_options,
    classify_request,
    explain_request,
    read,
)
from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub

T = TypeVar("T")


class AsyncClient:
    """A connection to one server, for the tasks of one event loop. It connects with its first call.

    `timeout_s` and `patience_s` are those of `Client`.

    >>> async with AsyncClient("localhost:8001") as client:
    ...     (await client.classify("photo.jpg")).predictions[0].label
    """

    def __init__(self, target: str = DEFAULT_TARGET, timeout_s: float = 30.0, patience_s: float = 60.0) -> None:
        self._target, self._timeout_s, self._patience_s = target, timeout_s, patience_s

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls under way fail."""
        if "_channel" in vars(self):  # a call has opened it
            await self._channel.close()

    async def classify(
        self, image: Image, *, request_id: str = "", **options: Unpack[ClassifyOptions]
    ) -> Classification:
        """Classify one image, given as its encoded bytes or as a path. Raises `CallFailed` or `OSError`."""
        request = classify_request(await _read(image), request_id, options)
        return classification_of(await self._call(self._stub.Classify, request))

    async def classify_many(
        self, images: Iterable[Image] | AsyncIterable[Image], **options: Unpack[ClassifyOptions]
    ) -> AsyncGenerator[Classification | CallFailed, None]:
        """Classify images, several at once; yields in their order, a failed one as its error.

        `images` may be endless, and async: it is drawn from as answers are taken. Raises `CallFailed` where the server
        is out of reach or silent for too long.
        """
        in_order = InOrder[Classification | CallFailed]()
        numbered = ((number, str(number), image) async for number, image in _numbered(images))
        outcomes = self._classify(numbered, options, in_order)
        try:
            async for number, outcome in outcomes:
                for due in in_order.add(number, outcome):
                    yield due
        finally:
            await outcomes.aclose()

    def classify_as_ready(
        self,
        images: Iterable[AnyImage] | AsyncIterable[AnyImage],
        *,
        request_id: Callable[[AnyImage], str] | None = None,
        **options: Unpack[ClassifyOptions],
    ) -> AsyncGenerator[tuple[AnyImage, Classification | CallFailed], None]:
        """As `classify_many`, but yields each image with its outcome as soon as it is there, in any order.

        `request_id` gives an image an id of its own, by which a canary's share is chosen.
        """
        keyed = (
            (image, str(number) if request_id is None else request_id(image), image)
            async for number, image in _numbered(images)
        )
        return self._classify(keyed, options, ())

    async def explain(
        self,
        image: Image,
        explained: int | str | None = None,
        *,
        request_id: str = "",
        **options: Unpack[ClassifyOptions],
    ) -> Explanation:
        """Where in an image the evidence for a class lies, which is named by index or label; None is the top one.

        Raises `CallFailed`, with the reason NO_EVIDENCE where the model cannot tell, or `OSError`.
        """
        request = explain_request(await _read(image), explained, request_id, options)
        return explanation_of(await self._call(self._stub.Explain, request))

    async def list_models(self) -> list[ModelDescription]:
        """The models in service, by name. Raises `CallFailed`."""
        answer = await self._call(self._stub.ListModels, pb.ListModelsRequest())
        return [description_of(found) for found in answer.models]

    async def get_model(self, model: str = "", version: int = 0, *, label: str = "") -> ModelDescription:
        """The one that would answer. Raises `CallFailed`."""
        request = pb.GetModelRequest(model=model, version=version, label=label)
        return description_of((await self._call(self._stub.GetModel, request)).model)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._target, options=channel_options(self._target))

    @cached_property
    def _stub(self) -> Any:
        return ImageClassifierStub(self._channel)

    async def _classify(
        self, images: AsyncIterator[tuple[Key, str, Image]], options: ClassifyOptions, held: Sized
    ) -> AsyncGenerator[tuple[Key, Classification | CallFailed], None]:
        """For (key, id, image). Draws no further image while `held` has as many outcomes as may be in flight."""
        keys: dict[str, Key] = {}
        async with AsyncExchange(self._stub, self._target, self._timeout_s, self._patience_s) as exchange:
            async for key, request_id, image in images:
                while exchange.in_flight and (exchange.full or len(held) >= WINDOW):
                    yield await _received(exchange, keys)
                try:
                    exchange.send(classify_request(await _read(image), request_id, options))
                    keys[request_id] = key
                except OSError as exc:
                    yield key, unreadable(exc)
            while exchange.in_flight:
                yield await _received(exchange, keys)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s)
        except grpc.RpcError as exc:
            raise from_rpc(exc, self._target) from exc


async def _received(exchange: AsyncExchange, keys: dict[str, Key]) -> tuple[Key, Classification | CallFailed]:
    request_id, outcome = await exchange.receive()
    return keys.pop(request_id), outcome if isinstance(outcome, CallFailed) else classification_of(outcome)


async def _read(image: Image) -> bytes:
    return image if isinstance(image, bytes) else await asyncio.to_thread(read, image)


async def _numbered(images: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[tuple[int, T]]:
    number = 0
    if isinstance(images, AsyncIterable):
        async for image in images:
            yield number, image
            number += 1
    else:
        for image in images:
            yield number, image
            number += 1
