"""Who calls, what they may do, and how much of it. Without tokens everybody may do everything.

A token is looked up by its SHA-256 digest. How long that takes may tell of the digest, of which nobody can choose a
part without the token; the digests themselves are compared in constant time.
"""

import hmac
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from service.core.call import Caller
from service.errors import PermissionDenied, Unauthenticated
from service.identity.quota import Usage
from service.identity.tokens import Scope, Token, digest

_LONGEST_TOKEN = 8192
_SUBJECTS = 10_000  # of an issuer whose use is remembered, beside those with calls in flight
_MISSING = "send one as 'authorization: Bearer TOKEN'"
_UNKNOWN = "the one that was sent is unknown or was revoked"
_EXPIRED = "the one that was sent has expired"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Known:
    token: Token
    caller: Caller
    usage: Usage


class Issuer(Protocol):
    """Whoever else gives out tokens, beside the file."""

    def token_of(self, sent: str, digest: str) -> tuple[str, Token]:
        """A subject, and what it may do. Raises `Unauthenticated`."""
        ...


class Access:
    """`workers` processes share the quotas: each grants its part.

    `use` may be called from any thread; whoever counts in `enter` and `leave` and is charged, from one alone.
    """

    def __init__(
        self,
        tokens: Iterable[Token] | None = None,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = _now,
        issuer: Issuer | None = None,
    ) -> None:
        self._workers, self._clock, self._today = workers, clock, today
        self._issuer, self._issuing = issuer, threading.Lock()
        self._by_digest: dict[str, _Known] = {}
        self._by_name: dict[str, _Known] = {}
        self._subjects: dict[str, _Known] = {}  # by the key of their caller, the one that came last at the end
        self.open = tokens is None and issuer is None
        if tokens is not None:
            self.use(tokens)

    @property
    def names(self) -> frozenset[str]:
        """What metrics may show."""
        of_issuer = [known.token.name for known in list(self._subjects.values())[:1]]
        return frozenset([*self._by_name, *of_issuer])

    def use(self, tokens: Iterable[Token]) -> None:
        """Know these tokens from now on, and no others. What a name has used stays charged to it."""
        known = [self._known(token, token.name, self._by_name) for token in tokens]
        self._by_name = {each.token.name: each for each in known}
        self._by_digest = {each.token.sha256: each for each in known}

    def identify(self, authorization: str | None, stranger: Caller) -> Caller:
        """The caller whose token the header has; where no tokens are asked for, the stranger.

        Raises `Unauthenticated`.
        """
        return stranger if self.open else self._find(authorization).caller

    def check_scope(self, caller: Caller, scope: Scope) -> None:
        """Raises `PermissionDenied`."""
        if caller.scopes is not None and scope not in caller.scopes:
            raise PermissionDenied(caller.name, f"the scope '{scope}'")

    def check_model(self, caller: Caller, model: str) -> None:
        """Raises `PermissionDenied`, whether there is such a model or not."""
        if not caller.may_ask(model):
            raise PermissionDenied(caller.name, f"the model '{model}'")

    def enter(self, caller: Caller) -> None:
        """A call begins; `leave` follows. Raises `QuotaExceeded`."""
        if caller.name:
            known = self._of(caller)
            known.usage.enter(known.token)

    def leave(self, caller: Caller) -> None:
        known = self._by_name.get(caller.key) or self._subjects.get(caller.key)
        if known is not None:
            known.usage.leave()

    def charge(self, caller: Caller, images: int) -> None:
        """One request. Raises `QuotaExceeded`, and `Unauthenticated` where the caller's token is gone."""
        if caller.name:
            known = self._of(caller)
            known.usage.charge(known.token, images, self._clock())

    def _known(self, token: Token, key: str, before: Mapping[str, _Known]) -> _Known:
        models = frozenset(token.models) if token.models else None
        caller = Caller(key, token.name, models, frozenset(token.scopes))
        return _Known(_share(token, self._workers), caller, before[key].usage if key in before else Usage())

    def _find(self, authorization: str | None) -> _Known:
        scheme, _, sent = (authorization or "").strip().partition(" ")
        sent = sent.strip()
        if scheme.lower() != "bearer" or not sent:
            raise Unauthenticated(_MISSING)
        if len(sent) > _LONGEST_TOKEN:
            raise Unauthenticated(_UNKNOWN)
        found = digest(sent)
        known = self._by_digest.get(found)
        if known is None and self._issuer is not None and sent.count(".") == 2:
            known = self._issued(self._issuer, sent, found)
        if known is None or not hmac.compare_digest(known.token.sha256, found):
            raise Unauthenticated(_UNKNOWN)
        return self._unexpired(known)

    def _issued(self, issuer: Issuer, sent: str, found: str) -> _Known:
        """The subject of an issuer's token, which keeps what it has used. Raises `Unauthenticated`."""
        with self._issuing:  # the operations port has a thread of its own
            subject, token = issuer.token_of(sent, found)
            key = f"{token.name}:{subject}"
            known = self._known(token, key, self._subjects)
            self._subjects.pop(key, None)
            self._subjects[key] = known
            if len(self._subjects) > _SUBJECTS:
                oldest = next(iter(self._subjects))
                left = self._subjects.pop(oldest)
                if left.usage.in_flight:
                    self._subjects[oldest] = left
        return known

    def _of(self, caller: Caller) -> _Known:
        known = self._by_name.get(caller.key) or self._subjects.get(caller.key)
        if known is None:
            raise Unauthenticated(_UNKNOWN)
        return self._unexpired(known)

    def _unexpired(self, known: _Known) -> _Known:
        if known.token.expires is not None and known.token.expires <= self._today():
            raise Unauthenticated(_EXPIRED)
        return known


def _share(token: Token, workers: int) -> Token:
    def part(rate: float | None) -> float | None:
        return None if rate is None else rate / workers

    return replace(
        token,
        requests_per_second=part(token.requests_per_second),
        images_per_second=part(token.images_per_second),
        in_flight=None if token.in_flight is None else math.ceil(token.in_flight / workers),
    )
