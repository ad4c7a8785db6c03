"""The queue alone, in simulated time, which other programs do not disturb: `python -m benchmarks.turns`.

One caller asks at random moments, 5 images of 6 ms a second; 8 others ask again as soon as they are answered. Two
lanes. Prints one JSON line for each kind of others, with the p99 as a multiple of the quiet one, for turns and for
first come, first served.
"""

import heapq
import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from service.scheduling.fair_queue import Bounds, FairQueue
from service.scheduling.item import Item

_LANES, _OTHERS, _CALLS = 2, 8, 2000
_OWN_S, _PER_S = 0.006, 5.0
_KINDS = {"just not slow": 0.01, "like the one": _OWN_S, "slow, were they in lanes": 0.049}


class _Waiting:
    """In place of a caller's future: nobody leaves."""

    def done(self) -> bool:
        return False


@dataclass
class Simulation:
    """`under_way` images of each of the others, which take `other_s`."""

    other_s: float
    under_way: int
    fair: bool
    latencies: list[float] = field(default_factory=list)

    def p99_ms(self) -> float:
        self._chance, self._number = random.Random(1), itertools.count()
        self._queue, self._events, self._idle = FairQueue(Bounds(10**6, 2**40)), list[Any](), _LANES
        moments = itertools.accumulate(self._chance.expovariate(_PER_S) for _ in range(_CALLS))
        for moment in moments:
            self._at(moment, "one")
        for other in range(_OTHERS * self.under_way):
            self._at(self._chance.uniform(0, 0.01), str(other % _OTHERS))
        while len(self.latencies) < _CALLS:
            self._step()
        return 1000 * sorted(self.latencies)[int(0.99 * _CALLS)]

    def _at(self, moment: float, what: "str | tuple[Item, str, float]") -> None:
        heapq.heappush(self._events, (moment, next(self._number), what))

    def _step(self) -> None:
        """The next arrival of a caller, or the next end of an image; then idle lanes take what waits."""
        now, _, what = heapq.heappop(self._events)
        if isinstance(what, str):
            waiting: Any = (what, _Waiting(), None, what if self.fair else "all", 1, now)
            self._queue.put(Item(*waiting), 0.01)
        else:
            self._end(now, *what)
        while self._idle and (item := self._queue.pop()) is not None:
            self._idle -= 1
            caller: Any = item.work
            seconds = (_OWN_S if caller == "one" else self.other_s) * self._chance.uniform(0.8, 1.25)
            self._at(now + seconds, (item, caller, seconds))

    def _end(self, now: float, item: Item, caller: str, seconds: float) -> None:
        self._idle += 1
        self._queue.end(item, seconds)
        if caller == "one":
            self.latencies.append(now - item.enqueued)
        else:
            self._at(now + 0.001, caller)


def main() -> None:
    quiet = Simulation(_OWN_S, 0, True).p99_ms()
    for kind, other_s in _KINDS.items():
        for under_way in (1, 10):
            turns, arrival = (Simulation(other_s, under_way, fair).p99_ms() / quiet for fair in (True, False))
            found = {"turns": round(turns, 1), "order_of_arrival": round(arrival, 1)}
            print(json.dumps({"others": kind, "ms": 1000 * other_s, "under_way": under_way, **found}))


if __name__ == "__main__":
    main()
