"""Leaving the processor to others in between, for work on a thread beside those that answer requests.

Not by low priority: a thread that waits for the processor while it holds the interpreter lock makes all others wait,
the longer the nicer it is (see `service.core.shadow_worker`).
"""

import time
from collections.abc import Callable

_LONGEST_S = 0.2


class Throttle:
    """Called between steps: sleeps `rest` times as long as the calling thread has computed since the last call."""

    def __init__(
        self,
        rest: float,
        sleep: Callable[[float], None] = time.sleep,
        computed: Callable[[], float] = time.thread_time,
    ) -> None:
        self._rest = rest
        self._sleep = sleep
        self._computed = computed
        self._last = 0.0

    def __call__(self) -> None:
        worked, self._last = self._computed() - self._last, self._computed()
        self._sleep(min(self._rest * worked, _LONGEST_S))
