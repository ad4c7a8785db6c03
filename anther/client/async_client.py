"""`anther.client.client` for programs with an event loop: the same calls, to be awaited."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from functools import cached_property
from types import TracebackType
from typing import Any, Unpack

import grpc

from anther.client import calls
from anther.client import target as targets
from anther.client.answers import Classification, Explanation, ModelDescription, classification_of
from anther.client.async_exchange import AsyncExchange
from anther.client.call_failed import CallFailed, from_rpc, unreadable
from anther.client.calls import DEFAULT_TARGET, AnyImage, Call, Class, ClassifyOptions, Image, InOrder, Key, T, read
from anther.client.connection import Connection
from anther.client.pending import WINDOW
from anther.client.security import Security, TlsOption
from anther.v1.classifier_pb2_grpc import ImageClassifierStub


class AsyncClient:
    """A connection to one server, for the tasks of one event loop. It connects with its first call.

    `timeout_s`, `patience_s`, `tls` and `token` are those of `Client`.

    >>> async with AsyncClient("localhost:8001") as client:
    ...     (await client.classify("photo.jpg")).predictions[0].label
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
        """Raises as `Client` does."""
        targets.check(target)
        calls.check_times(timeout_s, patience_s)
        self._security = Security(target, tls, token)
        self._connection = Connection(target, self._security.metadata)
        self._timeout_s, self._patience_s = timeout_s, patience_s

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        self._connection.close()
        if "_channel" in vars(self):  # a call has opened it
            await self._channel.close()

    async def classify(
        self, image: Image, *, request_id: str = "", **options: Unpack[ClassifyOptions]
    ) -> Classification:
        """As `Client.classify`."""
        return await self._answer(calls.classify(await _read(image), request_id, options))

    async def classify_many(
        self, images: Iterable[Image] | AsyncIterable[Image], **options: Unpack[ClassifyOptions]
    ) -> AsyncGenerator[Classification | CallFailed, None]:
        """As `Client.classify_many`; `images` may be async, too."""
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
        """As `Client.classify_as_ready`; `images` may be async, too."""
        keyed = (
            (image, str(number) if request_id is None else request_id(image), image)
            async for number, image in _numbered(images)
        )
        return self._classify(keyed, options, ())

    async def explain(
        self, image: Image, explained: Class | None = None, *, request_id: str = "", **options: Unpack[ClassifyOptions]
    ) -> Explanation:
        """As `Client.explain`."""
        return await self._answer(calls.explain(await _read(image), explained, request_id, options))

    async def list_models(self) -> list[ModelDescription]:
        """As `Client.list_models`."""
        return await self._answer(calls.list_models())

    async def get_model(self, model: str = "", version: int = 0, *, label: str = "") -> ModelDescription:
        """As `Client.get_model`."""
        return await self._answer(calls.get_model(model, version, label))

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        target, security = self._connection.target, self._security
        options = [*calls.channel_options(target), *security.options]
        if security.credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, security.credentials, options=options)

    @cached_property
    def _stub(self) -> Any:
        return ImageClassifierStub(self._channel)

    async def _classify(
        self, images: AsyncIterator[tuple[Key, str, Image]], options: ClassifyOptions, held: Sized
    ) -> AsyncGenerator[tuple[Key, Classification | CallFailed], None]:
        """For (key, id, image). Draws no further image while `held` has as many outcomes as may be in flight."""
        keys: dict[str, Key] = {}
        async with AsyncExchange(self._stub, self._connection, self._timeout_s, self._patience_s) as exchange:
            async for key, request_id, image in images:
                while exchange.pending.in_flight and (exchange.pending.full or len(held) >= WINDOW):
                    yield await _received(exchange, keys)
                try:
                    exchange.send(calls.classify_request(await _read(image), request_id, options))
                    keys[request_id] = key
                except OSError as exc:
                    yield key, unreadable(exc)
            while exchange.pending.in_flight:
                yield await _received(exchange, keys)

    async def _answer(self, call: Call[T]) -> T:
        try:
            with self._connection:
                ask = getattr(self._stub, call.method)
                answer = await ask(call.request, timeout=self._timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as exc:
            raise from_rpc(exc, self._connection.target) from exc
        return call.record_of(answer)


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
