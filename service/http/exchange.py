"""A request as handlers read it, and the one response to it. Errors become problems, and every request is recorded."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from starlette.datastructures import Headers, QueryParams

from anther.errors import AntherError
from service.core.call import Call, caller_at
from service.edge.arrivals import Arrivals
from service.edge.calls import Calls, Method
from service.edge.failures import failure_of
from service.errors import ArrivedTooSlowly, Draining, InvalidArgument, RequestTooLarge
from service.http import problems
from service.http.connections import has_body

ARRIVALS = "arrivals"  # in the state of a request's scope
_SILENCE_S = 15.0  # of a client that has more to send
_LINGER_S = 1.0  # for a client to read a response before it has sent its whole request
_LINGER_BYTES = 32 * 1024  # of a response, which the connection takes without waiting for its client
_MAX_TIMEOUT_S = 86_400.0
TIMEOUT = "timeout"  # in the query: the caller's deadline, in seconds from now

T = TypeVar("T")
Header = tuple[bytes, bytes]
TooLarge = Callable[[int], AntherError]
"""From a body's bytes, as far as they are known, to the error."""


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    content_type: bytes = b"application/json"
    status: int = 200
    headers: Sequence[Header] = ()


class Request:
    """`unread` while there is more of the body; `recorded` once its end is; `left` once the client has left."""

    def __init__(self, scope: Any, receive: Any, calls: Calls) -> None:
        self.scope, self._receive, self._calls = scope, receive, calls
        self.started = time.perf_counter()
        self.headers, self.query = Headers(scope=scope), QueryParams(scope["query_string"])
        self.path: dict[str, Any] = scope.get("path_params", {})
        self.call = Call("http", caller_at(scope["client"][0] if scope["client"] else ""))
        self.unread = has_body(scope["headers"])
        self.left = self.recorded = False

    def admit(self, name: str) -> None:
        """The caller is whose token the header has. Raises as `Calls.admit`."""
        given = self.headers.getlist("authorization")
        try:
            self.call = self._calls.admit(name, self.call, given[0] if len(given) == 1 else None)
        except AntherError:
            self.recorded = True
            raise

    async def body(self, most: int, too_large: TooLarge | None = None) -> bytes:
        """The whole body. Raises `RequestTooLarge` or what `too_large` makes of its size."""

        async def read(pieces: AsyncGenerator[bytes, None]) -> bytes:
            return b"".join([piece async for piece in pieces])

        return await self.receive(most, read, too_large)

    async def receive(
        self, most: int, read: Callable[[AsyncGenerator[bytes, None]], Awaitable[T]], too_large: TooLarge | None = None
    ) -> T:
        """What `read` makes of the body, of which no more than `most` bytes are read.

        Raises as `body`, and `ArrivalsFull` and `ArrivedTooSlowly`.
        """
        size = self._size(most)
        if size > most:
            raise RequestTooLarge(most) if too_large is None else too_large(size)

        async def reading() -> T:
            async with contextlib.aclosing(self._pieces(most, too_large)) as pieces:
                return await read(pieces)

        arrivals: Arrivals = self.scope["state"][ARRIVALS]
        return await arrivals.receive(self.call.caller.key, size, reading) if self.unread else await reading()

    async def run(self, method: Method, asked: Any) -> Any:
        """The answer to what the request asks, whose body has been read. A client that leaves cancels it."""
        return await self._attended(method, lambda: self._calls.run(method, asked, self.call))

    async def run_all(self, method: Method, asked: list[Any]) -> list[Any]:
        """The answers, and the errors of those that failed."""

        def work() -> Awaitable[list[Any]]:
            return asyncio.gather(*(self._calls.run(method, each, self.call) for each in asked), return_exceptions=True)

        return await self._attended(method, work)

    def _size(self, most: int) -> int:
        """What the body may come to."""
        given = self.headers.get("content-length", "")
        if "transfer-encoding" in self.headers:
            return most
        return int(given) if given else 0

    async def _pieces(self, most: int, too_large: TooLarge | None) -> AsyncGenerator[bytes, None]:
        """As they come. Raises `CancelledError` where the client leaves before the end."""
        size = 0
        while self.unread:
            try:
                async with asyncio.timeout(_SILENCE_S):
                    message = await self._receive()
            except TimeoutError as exc:
                raise ArrivedTooSlowly(_SILENCE_S) from exc
            if message["type"] == "http.disconnect":
                self.left, self.unread = True, False
                raise asyncio.CancelledError
            size += len(message["body"])
            self.unread = message.get("more_body", False)
            if size > most:
                raise RequestTooLarge(most) if too_large is None else too_large(size)
            yield message["body"]

    async def _attended(self, method: Method, work: Callable[[], Awaitable[T]]) -> T:
        self.recorded = True
        self._calls.begin(method.name, self.call)
        watching = asyncio.create_task(self._watch(asyncio.current_task()))
        try:
            return await work()
        finally:
            watching.cancel()
            self._calls.end(self.call)

    async def _watch(self, working: Any) -> None:
        """After the body's end, the next message tells that the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.left = True
        working.cancel()


def call_of(request: Request, traced: bool) -> Call:
    """What HTTP knows of a call. Raises `InvalidArgument`."""
    traceparent = request.headers.get("traceparent", "") if traced else ""
    return replace(request.call, deadline=_deadline(request.query), traceparent=traceparent)


def _deadline(query: QueryParams) -> float | None:
    if TIMEOUT not in query:
        return None
    try:
        seconds = float(query[TIMEOUT])
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _MAX_TIMEOUT_S:
        raise InvalidArgument(TIMEOUT, query[TIMEOUT], f"seconds, above 0 and at most {_MAX_TIMEOUT_S:,.0f}")
    return time.monotonic() + seconds


Handler = Callable[[Request], Awaitable[Reply]]
Refusal = Callable[[BaseException], Reply]


class Endpoint:
    """What stands at a path: ASGI around a handler. `name` is the method's in metrics; `refuse` forms its errors."""

    def __init__(self, name: str, handler: Handler, calls: Calls, refuse: Refusal | None = None) -> None:
        self._name, self._handler, self._calls = name, handler, calls
        self._refuse = refuse or refusal

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, self._calls)
        try:
            request.admit(self._name)
            request.call = call_of(request, self._calls.traced)
            reply = await self._handler(request)
        except asyncio.CancelledError:
            if not request.recorded:
                self._calls.stream_departed(request.call, request.started)
            if request.left:
                return
            reply = self._refuse(Draining())  # the grace period is over
        except Exception as exc:
            if not request.recorded:
                self._calls.refused(self._name, exc, request.call, request.started)
            reply = self._refuse(exc)
        await answer(reply, request.unread, receive, send)


def json_reply(found: Any, headers: Sequence[Header] = ()) -> Reply:
    return Reply(json.dumps(found).encode() + b"\n", headers=headers)


def refusal(error: BaseException) -> Reply:
    failure = failure_of(error)
    status = problems.status_of(failure)
    return Reply(problems.body(failure, status), problems.CONTENT_TYPE, status, problems.headers(failure, status))


async def answer(reply: Reply, unread: bool, receive: Any, send: Any) -> None:
    """A connection ends with a response before the end of its request, or from a server that sends callers away.

    It is closed a little later than the response, which the client could not read otherwise.
    """
    headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % len(reply.body)), *reply.headers]
    if unread or reply.status == 503:
        headers.append((b"connection", b"close"))
    lingers = unread and len(reply.body) < _LINGER_BYTES
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": lingers})
    if lingers:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while (await receive()).get("more_body", False):
                    continue
        await send({"type": "http.response.body", "body": b""})
