"""Who may call: by token, scope, model and quota; changes count at once, and what was used stays charged."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.core.call import Caller
from service.errors import PermissionDenied, QuotaExceeded, Unauthenticated
from service.identity.access import Access
from service.identity.tokens import Token, digest

STRANGER = Caller("192.0.2.1")
SECRET = "anther_secret"
BEARER = f"Bearer {SECRET}"


def token(name: str = "shop", secret: str = SECRET, **limits: Any) -> Token:
    return Token(name, digest(secret), limits.pop("scopes", ("classify",)), **limits)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_tokens_everybody_may_do_everything() -> None:
    access = Access()
    caller = access.identify(None, STRANGER)
    assert access.open
    assert caller is STRANGER
    access.check_scope(caller, "control")
    access.check_model(caller, "flowers")
    access.enter(caller)
    access.charge(caller, 10**6)
    access.leave(caller)


@pytest.mark.parametrize("header", [BEARER, f"bearer {SECRET}", f"BEARER   {SECRET} ", f" {BEARER}"])
def test_a_token_names_its_caller(header: str) -> None:
    caller = Access([token(models=("flowers",))]).identify(header, STRANGER)
    assert caller == Caller("shop", "shop", frozenset({"flowers"}), frozenset({"classify"}))


@pytest.mark.parametrize(
    "header",
    [None, "", SECRET, "Bearer", "Bearer ", f"Basic {SECRET}", f"{BEARER}x", f"{BEARER} x", "Bearer " + "x" * 10**6,
     f"Bearer {digest(SECRET)}", "Bearer \udcff", "Bearer é"],
    ids=lambda header: str(header)[:20].encode(errors="replace").decode(),
)  # fmt: skip
def test_anything_else_is_refused_and_not_shown(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="this server asks for a token") as raised:
        Access([token()]).identify(header, STRANGER)
    assert SECRET not in str(raised.value)
    assert raised.value.facts == {}


def test_a_token_is_for_its_scopes_and_models() -> None:
    access = Access([token(models=("flowers",))])
    caller = access.identify(BEARER, STRANGER)
    access.check_scope(caller, "classify")
    access.check_model(caller, "flowers")
    with pytest.raises(PermissionDenied, match="'shop' is not for the scope 'control'"):
        access.check_scope(caller, "control")
    with pytest.raises(PermissionDenied, match="'shop' is not for the model 'trees'"):
        access.check_model(caller, "trees")


def test_a_token_ends_at_its_time_also_for_calls_under_way() -> None:
    today = [datetime(2030, 1, 1, tzinfo=UTC)]
    access = Access([token(expires=datetime(2030, 1, 2, tzinfo=UTC))], today=lambda: today[0])
    caller = access.identify(BEARER, STRANGER)
    today[0] = datetime(2030, 1, 2, tzinfo=UTC)
    for late in (lambda: access.identify(BEARER, STRANGER), lambda: access.charge(caller, 1)):
        with pytest.raises(Unauthenticated, match="has expired"):
            late()


def test_a_token_that_is_revoked_or_replaced_counts_no_more() -> None:
    access = Access([token()])
    caller = access.identify(BEARER, STRANGER)
    access.enter(caller)
    access.use([token(secret="another")])
    with pytest.raises(Unauthenticated, match="unknown or was revoked"):
        access.identify(BEARER, STRANGER)
    access.use([])
    with pytest.raises(Unauthenticated, match="unknown or was revoked"):
        access.charge(caller, 1)
    access.leave(caller)


def test_new_limits_keep_what_was_used() -> None:
    clock = Clock()
    access = Access([token(images_per_second=10)], clock=clock)
    caller = access.identify(BEARER, STRANGER)
    access.charge(caller, 10)
    access.use([token(images_per_second=5, in_flight=1)])
    with pytest.raises(QuotaExceeded, match="5 images a second") as raised:
        access.charge(caller, 1)
    clock.now += raised.value.retry_after_s
    access.charge(caller, 1)
    access.enter(caller)
    access.use([token(in_flight=1)])
    with pytest.raises(QuotaExceeded):
        access.enter(caller)


def test_each_of_several_workers_grants_its_part() -> None:
    access = Access([token(requests_per_second=10, in_flight=3)], workers=2, clock=Clock())
    caller = access.identify(BEARER, STRANGER)
    for _ in range(5):
        access.charge(caller, 1)
    with pytest.raises(QuotaExceeded, match="5 requests a second"):
        access.charge(caller, 1)
    access.enter(caller)
    access.enter(caller)
    with pytest.raises(QuotaExceeded):
        access.enter(caller)
