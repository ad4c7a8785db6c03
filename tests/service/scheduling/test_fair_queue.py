"""Turns among callers: by the seconds that their work used, within bounds, and forgotten when idle."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import QueueFull
from service.scheduling import fair_queue
from service.scheduling.fair_queue import Bounds, FairQueue
from service.scheduling.item import Item

PLENTY = Bounds(10**6, 2**40)
SOON_S = 0.01


@dataclass
class Piece:
    caller: str
    size: int = 1
    deadline: float | None = None


class Future:
    """`Item.left` asks it alone."""

    def __init__(self) -> None:
        self.cancelled = False

    def done(self) -> bool:
        return self.cancelled


def item_of(caller: str, size: int = 1) -> Item:
    future: Any = Future()
    return Item(Piece(caller, size), future, None, caller, size)  # type: ignore[arg-type]  # nothing is delivered here


@dataclass
class Model:
    """The queue beside what it must hold: the items of each caller in their order."""

    bounds: Bounds
    queue: FairQueue = field(init=False)
    held: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    running: list[Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = FairQueue(self.bounds)

    def items(self) -> Iterator[Item]:
        return (item for items in self.held.values() for item in items)

    def put(self, caller: str, size: int) -> None:
        item = item_of(caller, size)
        before = {key: list(items) for key, items in self.held.items() if items}
        try:
            pushed_out = self.queue.put(item, SOON_S)
        except QueueFull:
            self._drop_cancelled()
            assert self._exceeds(item)
            return
        if pushed_out or self._exceeds(item):
            self._drop_cancelled()
        callers = len({*(key for key in before if self.held[key]), caller})
        for other, full in pushed_out:
            assert other.caller != caller
            assert other is self.held[other.caller].pop()  # the newest of its caller
            measure, limit = (
                (len, self.bounds.items)
                if full.facts["unit"] == "requests"
                else (lambda items: sum(each.size for each in items), self.bounds.bytes)
            )
            assert measure([*self.held[other.caller], other]) * callers > limit  # it held more than an equal share
        assert not self._exceeds(item)
        self.held[caller].append(item)

    def pop(self) -> Item | None:
        item = self.queue.pop()
        if item is None:
            assert all(each.left for each in self.items())
            self.held.clear()
            return None
        while (first := self.held[item.caller].pop(0)) is not item:  # a caller's own items stay in order
            assert first.left
        self.running.append(item)
        return item

    def check(self) -> None:
        waiting = list(self.items())
        assert len(waiting) >= len(self.queue) >= sum(not item.left for item in waiting)
        assert len(self.queue) <= self.bounds.items

    def _exceeds(self, item: Item) -> bool:
        waiting = list(self.items())
        size = sum(each.size for each in waiting) + item.size
        return len(waiting) >= self.bounds.items or (bool(waiting) and size > self.bounds.bytes)

    def _drop_cancelled(self) -> None:
        for caller, items in self.held.items():
            self.held[caller] = [item for item in items if not item.left]


CALLERS = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("put"), CALLERS, st.integers(0, 40)),
    st.tuples(st.just("pop")),
    st.tuples(st.just("end"), st.integers(0, 10), st.floats(0, 5)),
    st.tuples(st.just("leave"), st.integers(0, 10)),
)


@settings(max_examples=100, deadline=None)
@given(st.builds(Bounds, st.integers(1, 8), st.integers(1, 100)), st.lists(STEPS, max_size=60))
def test_bounds_order_and_equal_shares_hold_whatever_happens(bounds: Bounds, steps: list[Any]) -> None:
    """Whoever is pushed out held more than an equal share, and whoever comes in holds no more than that."""
    model = Model(bounds)
    for kind, *what in steps:
        if kind == "put":
            model.put(*what)
        elif kind == "pop":
            model.pop()
        elif kind == "leave":
            waiting = list(model.items())
            if waiting:
                waiting[what[0] % len(waiting)].future.cancelled = True  # type: ignore[attr-defined]
        elif model.running:
            model.queue.end(model.running.pop(what[0] % len(model.running)), what[1])
        model.check()
    for item in model.running:
        model.queue.end(item, 1.0)
    model.running.clear()
    while (item := model.pop()) is not None:
        model.queue.end(item, 1.0)
    assert (len(model.queue), model.queue.accounts) == (0, 0)  # nobody is remembered when nobody is there


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(CALLERS, st.lists(st.floats(0.001, 1), min_size=1, max_size=4), min_size=2),
    st.integers(1, 4),
    st.integers(20, 60),
)
def test_callers_who_always_have_work_waiting_use_the_same_time(costs, threads: int, turns: int) -> None:
    """However much each piece takes: they differ by no more than the pieces under way and those last charged."""
    queue, used, number = FairQueue(PLENTY), Counter[str](), Counter[str]()
    running: list[tuple[Item, float]] = []
    for caller in costs:
        for _ in range(turns + threads):
            queue.put(item_of(caller), SOON_S)
    for _ in range(turns):
        while len(running) < threads:
            item = queue.pop()
            assert item is not None
            own = costs[item.caller]
            running.append((item, own[number[item.caller] % len(own)]))
            number[item.caller] += 1
        item, seconds = running.pop(0)
        queue.end(item, seconds)
        used[item.caller] += seconds
    largest = max(max(own) for own in costs.values())
    assert max(used[caller] for caller in costs) - min(used[caller] for caller in costs) <= 2 * (threads + 1) * largest


def test_a_caller_with_cheap_work_is_not_behind_one_with_dear_work() -> None:
    queue = FairQueue(PLENTY)
    for caller in ("dear", "cheap"):
        for _ in range(200):
            queue.put(item_of(caller), SOON_S)
    order = []
    for _ in range(110):
        item = queue.pop()
        assert item is not None
        order.append(item.caller)
        queue.end(item, 1.0 if item.caller == "dear" else 0.01)
    assert order.count("dear") <= 3


def test_whoever_was_idle_has_no_credit_from_then() -> None:
    queue = FairQueue(PLENTY)
    for _ in range(50):
        queue.put(item_of("busy"), SOON_S)
    for _ in range(40):
        item = queue.pop()
        assert item is not None
        queue.end(item, 1.0)
    for _ in range(10):
        queue.put(item_of("new"), SOON_S)
    order = []
    for _ in range(6):
        item = queue.pop()
        assert item is not None
        order.append(item.caller)
        queue.end(item, 1.0)
    assert abs(order.count("new") - order.count("busy")) <= 2


def test_a_few_images_that_come_together_go_before_those_of_a_busy_caller_and_more_do_not() -> None:
    queue = FairQueue(PLENTY)
    for _ in range(100):
        queue.put(item_of("busy"), SOON_S)
    order = []
    for turn in range(60):
        if turn == 30:
            for _ in range(20):
                queue.put(item_of("new"), SOON_S)
        item = queue.pop()
        assert item is not None
        order.append(item.caller)
        queue.end(item, 0.01)
    assert order[30:35] == ["new"] * 5  # which is the credit
    assert order[35:55].count("new") == 10


def test_nobody_begins_many_at_once_unpaid() -> None:
    """While their cost is not known, the mean is charged."""
    queue = FairQueue(PLENTY)
    for caller in ("a", "a", "a", "a", "b", "b"):
        queue.put(item_of(caller), SOON_S)
    begun = [queue.pop() for _ in range(4)]
    assert Counter(item.caller for item in begun if item) == {"a": 2, "b": 2}


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.lists(st.floats(0.02, 0.2), min_size=20, max_size=20))
def test_a_caller_below_its_share_waits_only_for_what_runs_already(others: int, lanes: int, gaps: list[float]) -> None:
    """Beside others who always have four pieces waiting, each of them the longest that a lane takes on."""
    own_s, longest_s = 0.006, 0.01
    queue, now, free_at = FairQueue(PLENTY), 0.0, [0.0] * lanes
    arrivals = list(itertools.accumulate(gap + longest_s * (others + 1) / lanes for gap in gaps))
    came: dict[Item, float] = {}
    for caller in map(str, range(others)):
        for _ in range(4):
            queue.put(item_of(caller), SOON_S)
    waits, running = [], list[tuple[float, Item]]()
    while arrivals or any(item.caller == "normal" for item in came):
        now = min(free_at)
        for ended, item in [each for each in running if each[0] <= now]:
            running.remove((ended, item))
            queue.end(item, own_s if item.caller == "normal" else longest_s)
            if item.caller != "normal":
                queue.put(item_of(item.caller), SOON_S)
        while arrivals and arrivals[0] <= now:
            normal = item_of("normal")
            came[normal] = arrivals.pop(0)
            queue.put(normal, SOON_S)
        item = queue.pop()
        assert item is not None
        if item in came:
            waits.append(now - came.pop(item))
        free_at[free_at.index(now)] = now + (own_s if item.caller == "normal" else longest_s)
        running.append((now + (own_s if item.caller == "normal" else longest_s), item))
    assert len(waits) == len(gaps)
    assert max(waits) <= longest_s + 1e-9


def test_work_that_need_not_wait_is_charged_all_the_same() -> None:
    queue = FairQueue(PLENTY)
    first, other = item_of("a"), item_of("b")
    queue.begin(other)
    queue.begin(first)
    queue.put(item_of("a"), SOON_S)
    queue.put(item_of("b"), SOON_S)
    queue.end(first, 1.0)
    queue.end(other, 0.1)
    item = queue.pop()
    assert item is not None
    assert item.caller == "b"


def test_the_callers_that_are_remembered_are_bounded() -> None:
    """One for each stranger that owes time would be memory that strangers decide about."""
    queue, staying = FairQueue(PLENTY), item_of("staying")
    queue.begin(staying)
    for number in range(fair_queue._MAX_OWING + 200):
        item = item_of(str(number))
        queue.begin(item)
        queue.end(item, 1000.0)
    assert queue.accounts == fair_queue._MAX_OWING + 1
    queue.end(staying, 1.0)
    assert queue.accounts == 0


def test_one_caller_cannot_keep_the_queue_full_for_another() -> None:
    queue = FairQueue(Bounds(4, 100))
    flood = [item_of("flood", 20) for _ in range(4)]
    for item in flood:
        queue.put(item, SOON_S)
    with pytest.raises(QueueFull):
        queue.put(item_of("flood", 20), SOON_S)
    assert [out for out, _ in queue.put(item_of("other", 20), SOON_S)] == [flood[3]]
    assert [out for out, _ in queue.put(item_of("other", 30), SOON_S)] == [flood[2]]
    with pytest.raises(QueueFull, match="requests"):  # it has its share
        queue.put(item_of("other", 1), SOON_S)
    assert len(queue) == 4
