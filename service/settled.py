"""Small things done in groups: what has just run is in the processor's caches and runs several times as fast.

Between two requests a picture's inference goes through them, so that counting one answer costs as much as ten do in a
row.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import RestrictedRegistry

T = TypeVar("T")

_TOGETHER = 64


class Pending(Generic[T]):
    """Items for `handle`, which gets them in their order and one at a time, soon or at `settle`."""

    def __init__(self, handle: Callable[[T], None]) -> None:
        self._handle = handle
        self._items: deque[T] = deque()
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """From one thread."""
        self._items.append(item)
        if len(self._items) >= _TOGETHER:
            self.settle()

    def settle(self) -> None:
        """On return everything that was put before is handled. From any thread."""
        with self._lock:
            while self._items:
                self._handle(self._items.popleft())


class SettledRegistry(CollectorRegistry):
    """Calls `settle` before anybody reads it."""

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        self._settle()
        return super().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        self._settle()
        return super().restricted_registry(names)
