"""How many calls may be in progress, in all and for each caller."""

from service.errors import TooManyCalls

_RETRY_S = 1.0  # after which one of them has probably ended


class Places:
    """At most `limit` calls at once, and three quarters of that for one caller, so that others find a place."""

    def __init__(self, limit: int) -> None:
        self._limit, self._limit_each = limit, max(1, limit * 3 // 4)
        self._taken = 0
        self._of_caller: dict[str, int] = {}

    def take(self, caller: str) -> None:
        """Raises `TooManyCalls`."""
        own = self._of_caller.get(caller, 0)
        if self._taken >= self._limit:
            raise TooManyCalls(self._taken, self._limit, "the server has", _RETRY_S)
        if own >= self._limit_each:
            raise TooManyCalls(own, self._limit_each, "the caller has", _RETRY_S)
        self._of_caller[caller] = own + 1
        self._taken += 1

    def give(self, caller: str) -> None:
        self._taken -= 1
        left = self._of_caller.pop(caller) - 1
        if left:
            self._of_caller[caller] = left


class Place:
    """One for the time of a `with` block. Not a generator, which would cost three times as much."""

    __slots__ = ("_caller", "_places")

    def __init__(self, places: Places, caller: str) -> None:
        self._places, self._caller = places, caller

    def __enter__(self) -> None:
        self._places.take(self._caller)

    def __exit__(self, *_: object) -> None:
        self._places.give(self._caller)
