"""Takes calls in: a place for each, and room for each message before it is read."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from service.edge.arrivals import Arrivals
from service.edge.places import Place, Places
from service.errors import ArrivalsFull, ArrivedTooSlowly, InvalidArgument, StreamSilent


class Intake:
    """How long a message is, nobody knows before it is there; so each takes the room of the longest that may come."""

    def __init__(self, places: Places, arrivals: Arrivals, longest: int) -> None:
        self._places, self._arrivals, self._longest = places, arrivals, longest

    def place(self, caller: str) -> Place:
        """For a `with` block around a call. It raises `TooManyCalls`."""
        return Place(self._places, caller)

    async def message(self, context: Any, caller: str) -> bytes:
        """The message of a unary call. Raises `InvalidArgument` where there is none, and as `Arrivals.receive`."""
        data = await self._arrivals.receive(caller, self._longest, context.read)
        if data is grpc.aio.EOF:
            raise InvalidArgument("request", "no message", "one message")
        return bytes(data)

    async def requests(self, parse: Callable[[bytes], Any], context: Any, caller: str) -> AsyncIterator[Any]:
        """The messages of a stream. Raises `InvalidArgument` and `StreamSilent`."""
        while True:
            request = await self._next(parse, context, caller)
            if request is None:
                return
            yield request
            del request  # or it would be held until the next one is here

    async def _next(self, parse: Callable[[bytes], Any], context: Any, caller: str) -> Any:
        try:
            data = await self._arrivals.receive(caller, self._longest, context.read)
        except (ArrivalsFull, ArrivedTooSlowly) as exc:
            raise StreamSilent(str(exc)) from exc
        return None if data is grpc.aio.EOF else parsed(parse, data)


def parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Done here, not by gRPC, which answers UNKNOWN with the name of a Python class."""
    try:
        return parse(data)
    except DecodeError as exc:
        raise InvalidArgument("request", f"{len(data):,} bytes", "a serialized message of the method's type") from exc
