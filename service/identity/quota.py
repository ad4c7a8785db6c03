"""A caller's quotas: rates by a token bucket, and calls in flight."""

from service.errors import QuotaExceeded
from service.identity.tokens import Token

_IN_FLIGHT_RETRY_S = 0.1  # nobody knows when a call of the caller's will end; few take longer


class Bucket:
    """A token bucket, kept as what was taken from it and has not flowed back yet, so that its rate may change.

    It holds what flows in during a second, at least one. A request for more than it holds passes when it is full and
    leaves a debt, so that over any time T at most rate × T, a bucketful, and one request pass.
    """

    __slots__ = ("_at", "_taken")

    def __init__(self) -> None:
        self._taken = 0.0
        self._at = 0.0

    def wait_s(self, cost: float, rate: float, now: float) -> float:
        """Seconds until `cost` may be taken; 0 where it may be now."""
        holds = max(1.0, rate)
        self._taken = max(0.0, self._taken - rate * max(0.0, now - self._at))
        self._at = now
        return max(0.0, (self._taken + min(cost, holds) - holds) / rate)

    def take(self, cost: float) -> None:
        """After `wait_s` returned 0."""
        self._taken += cost


class Usage:
    """What a token's callers use at present. It outlives changes of the token's limits."""

    __slots__ = ("_images", "_requests", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self._requests, self._images = Bucket(), Bucket()

    def enter(self, token: Token) -> None:
        """A call begins. Raises `QuotaExceeded`."""
        if token.in_flight is not None and self.in_flight >= token.in_flight:
            raise QuotaExceeded(token.name, f"calls in flight: {token.in_flight:,}", _IN_FLIGHT_RETRY_S)
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight = max(0, self.in_flight - 1)  # the token may have been revoked and made anew meanwhile

    def charge(self, token: Token, images: int, now: float) -> None:
        """One request of so many images: both rates allow it, or neither is charged. Raises `QuotaExceeded`."""
        parts = [
            (self._requests, token.requests_per_second, 1, "requests"),
            (self._images, token.images_per_second, images, "images"),
        ]
        binding = [(bucket, rate, cost, what) for bucket, rate, cost, what in parts if rate is not None and cost]
        for bucket, rate, cost, what in binding:
            wait_s = bucket.wait_s(cost, rate, now)
            if wait_s > 0:
                raise QuotaExceeded(token.name, f"{rate:g} {what} a second", wait_s)
        for bucket, _, cost, _ in binding:
            bucket.take(cost)
