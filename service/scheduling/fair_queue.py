"""The queue before a scheduler's threads: callers take turns by the seconds that their work used.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with measured costs. Bounded in items and in bytes: when it is
full, what arrives is refused at once, or pushes out work of the caller who holds most.
Not thread-safe: a scheduler calls it under its own lock.
"""

import math
from collections import deque
from dataclasses import dataclass

from service.errors import QueueFull
from service.scheduling.item import Item

_MAX_OWING = 1024  # callers without work that are remembered since they used their credit
_CREDIT_S = 0.05  # of work by which a caller who was idle goes before the others; a few images that come together
_SHARED_S = 10.0  # how long several callers are remembered to have asked


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most `items` wait, with `bytes` together."""

    items: int
    bytes: int


class _Account:
    """What one caller has waiting and running, and how much it used.

    `used_s` is the caller's virtual time: seconds that its work used, from where the others stood when it came.
    """

    __slots__ = ("bytes", "items", "key", "mean_s", "running", "used_s")

    def __init__(self, key: str, used_s: float, mean_s: float) -> None:
        self.key = key
        self.used_s = used_s
        self.mean_s = mean_s  # a moving average of an item, which is charged while one runs
        self.items: deque[Item] = deque()
        self.bytes = 0
        self.running = 0


class FairQueue:
    """The caller who used least is next; a caller's own items stay in the order of arrival.

    A caller who was idle starts level with those who wait but for a little credit, however long it was idle. Callers
    with nothing waiting or running are forgotten, except those who have used their credit up.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._accounts: dict[str, _Account] = {}  # each has items waiting or running
        self._owing: dict[str, _Account] = {}  # in the order in which they became idle
        self._count = self._bytes = 0
        self._now_s = 0.0  # the virtual time: where the caller stood whose item began last
        self._mean_s = 0.01  # moving average of an item, for a caller who is new
        self._last_caller: str | None = None
        self._changed = -math.inf  # when an item of another caller than the one before began last

    def __len__(self) -> int:
        return self._count

    @property
    def accounts(self) -> int:
        """Callers that are remembered."""
        return len(self._accounts) + len(self._owing)

    def shared(self, now: float) -> bool:
        """Whether several callers have asked lately."""
        return now - self._changed < _SHARED_S

    def put(self, item: Item, seconds_each: float) -> list[tuple[Item, QueueFull]]:
        """Returns the items that it took out to make room, each with the error for its caller.

        They are the newest of the caller who holds most, and only a caller within an equal share of the bound gets
        room in this way. Raises `QueueFull` otherwise, with a retry hint where an item takes `seconds_each`.
        """
        if self._full(item.size, seconds_each):
            self._drop_cancelled()
        pushed_out = []
        if full := self._full(item.size, seconds_each):
            self._refuse_beyond_share(item, full)
        while full := self._full(item.size, seconds_each):
            pushed_out.append((self._remove_from_largest(full.facts["unit"]), full))
        self._add(item)
        return pushed_out

    def put_back(self, item: Item) -> None:
        """An item that was accepted before; the bounds do not hold for it."""
        self._add(item, first=True)

    def pop(self) -> Item | None:
        """The next item whose caller still waits, begun."""
        while self._count:
            waiting = (account for account in self._accounts.values() if account.items)
            account = min(waiting, key=lambda account: (account.used_s, len(account.items), account.items[0].enqueued))
            item = account.items.popleft()
            self._removed(account, item)
            if not item.left:
                self._begin(account, item)
                return item
            self._rest(account)
        return None

    def begin(self, item: Item) -> None:
        """An item that need not wait: its caller is charged all the same."""
        self._begin(self._account(item.caller), item)

    def end(self, item: Item, seconds: float) -> None:
        """What a begun item really used."""
        account = self._accounts[item.caller]
        account.running -= 1
        account.used_s += seconds - item.charged_s
        account.mean_s += 0.2 * (seconds - account.mean_s)
        self._mean_s += 0.05 * (seconds - self._mean_s)
        self._rest(account)

    # Bounds

    def _full(self, size: int, seconds_each: float) -> QueueFull | None:
        """An item over the limit of bytes is still accepted when nothing else waits."""
        bounds, retry_after_s = self._bounds, max(0.01, self._count / 2 * seconds_each)  # until half of them are done
        if self._count >= bounds.items:
            return QueueFull(self._count, bounds.items, "requests", retry_after_s)
        if self._count and self._bytes + size > bounds.bytes:
            return QueueFull(self._bytes, bounds.bytes, "bytes", retry_after_s)
        return None

    def _refuse_beyond_share(self, item: Item, full: QueueFull) -> None:
        """Whoever stays within an equal share of every bound that is exceeded has somebody beyond it to push out."""
        own = self._accounts.get(item.caller)
        count, size = (len(own.items), own.bytes) if own else (0, 0)
        callers = sum(bool(account.items) for account in self._accounts.values()) + (count == 0)
        too_many = self._count >= self._bounds.items and (count + 1) * callers > self._bounds.items
        too_large = self._bytes + item.size > self._bounds.bytes and (size + item.size) * callers > self._bounds.bytes
        if too_many or too_large:
            raise full

    def _remove_from_largest(self, unit: str) -> Item:
        held = (lambda account: account.bytes) if unit == "bytes" else (lambda account: len(account.items))
        account = max(self._accounts.values(), key=held)
        item = account.items.pop()
        self._removed(account, item)
        self._rest(account)
        return item

    def _drop_cancelled(self) -> None:
        """Items of callers that cancelled must not take the places of others."""
        for account in list(self._accounts.values()):
            for _ in range(len(account.items)):
                item = account.items.popleft()
                if item.left:
                    self._removed(account, item)
                else:
                    account.items.append(item)
            self._rest(account)

    # Accounts

    @property
    def _idle_s(self) -> float:
        """Where a caller stands that has been idle."""
        return self._now_s - _CREDIT_S

    def _account(self, caller: str) -> _Account:
        account = self._accounts.get(caller)
        if account is None:
            account = self._owing.pop(caller, None) or _Account(caller, self._idle_s, self._mean_s)
            self._accounts[caller] = account
        if not account.items:
            account.used_s = max(account.used_s, self._idle_s)
        return account

    def _add(self, item: Item, first: bool = False) -> None:
        account = self._account(item.caller)
        (account.items.appendleft if first else account.items.append)(item)
        account.bytes += item.size
        self._bytes += item.size
        self._count += 1

    def _removed(self, account: _Account, item: Item) -> None:
        account.bytes -= item.size
        self._bytes -= item.size
        self._count -= 1

    def _begin(self, account: _Account, item: Item) -> None:
        """Charge the mean until the cost is known: otherwise one caller could begin many at once."""
        self._now_s = max(self._now_s, account.used_s)
        if self._last_caller not in (None, account.key):
            self._changed = item.enqueued
        self._last_caller = account.key
        item.charged_s = account.mean_s
        account.used_s += item.charged_s
        account.running += 1

    def _rest(self, account: _Account) -> None:
        """Forget a caller with nothing waiting or running; where nobody is left, nobody owes anything."""
        if account.items or account.running:
            return
        del self._accounts[account.key]
        if not self._accounts:
            self._owing.clear()
            self._now_s = 0.0
        elif account.used_s > self._idle_s:
            self._owing[account.key] = account
            if len(self._owing) > _MAX_OWING:
                del self._owing[next(iter(self._owing))]
