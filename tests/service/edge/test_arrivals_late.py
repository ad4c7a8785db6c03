"""A message whose trial is over before the busy loop comes to it is refused like any other."""

import asyncio

import pytest

from service.edge import arrivals as module
from service.edge.arrivals import Arrivals
from service.errors import ArrivalsFull


def test_a_message_that_is_refused_before_its_reading_begins_says_why(run, monkeypatch) -> None:
    monkeypatch.setattr(module, "_TRIALS", 0)

    async def test() -> None:
        arrivals, arrived = Arrivals(10, 60.0), asyncio.Event()
        first = asyncio.create_task(arrivals.receive("a", 10, arrived.wait))
        second = asyncio.create_task(arrivals.receive("b", 10, arrived.wait))
        await asyncio.sleep(0)
        arrived.set()
        while first in asyncio.all_tasks():
            await asyncio.sleep(0)
        (late,) = arrivals._reading
        arrivals._refuse(late, arrivals._full())
        with pytest.raises(ArrivalsFull):
            await second
        assert not arrivals.busy

    run(test())
