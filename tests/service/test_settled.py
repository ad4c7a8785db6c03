"""Nothing that was put is lost, done twice or out of order, whoever asks for it to be done."""

import threading
from collections.abc import Callable

import pytest
from prometheus_client import Counter, generate_latest

from service.settled import Pending, SettledRegistry


@pytest.fixture
def done() -> list[int]:
    return []


def test_items_wait_for_company_and_are_then_done_in_their_order(done: list[int]) -> None:
    pending = Pending(done.append)
    for number in range(63):
        pending.put(number)
    assert done == []
    pending.put(63)
    assert done == list(range(64))


def test_settling_does_them_at_once(done: list[int]) -> None:
    pending = Pending(done.append)
    pending.put(1)
    pending.settle()
    pending.settle()
    assert done == [1]


def test_several_threads_may_settle_while_another_puts(done: list[int]) -> None:
    pending, ended = Pending(done.append), threading.Event()

    def settle() -> None:
        while not ended.is_set():
            pending.settle()

    threads = [threading.Thread(target=settle) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20_000):
        pending.put(number)
    ended.set()
    for thread in threads:
        thread.join()
    pending.settle()
    assert done == list(range(20_000))


@pytest.mark.parametrize(
    "read",
    [
        lambda registry: registry.get_sample_value("asked_total"),
        lambda registry: next(iter(registry.collect())).samples[0].value,
        lambda registry: float(generate_latest(registry).decode().split()[-1]),
        lambda registry: next(iter(registry.restricted_registry(["asked_total"]).collect())).samples[0].value,
    ],
    ids=["sample", "collect", "page", "part of the page"],
)
def test_whoever_reads_a_registry_gets_what_was_put_before(read: Callable[[SettledRegistry], float]) -> None:
    asked = Counter("asked", "Times", registry=None)
    pending = Pending[float](asked.inc)
    registry = SettledRegistry(pending.settle)
    registry.register(asked)
    pending.put(2.0)
    assert read(registry) == 2.0
