"""How long to wait before the next try of what keeps failing."""

from dataclasses import dataclass

_SETTLED_S = 10.0  # what held for this long has not failed at its start
_FIRST_S, _LONGEST_S = 0.5, 30.0


@dataclass(slots=True)
class Backoff:
    """Nothing after a try that held; after others half a second, and twice as long each time."""

    _next_s: float = _FIRST_S

    def after(self, held_s: float) -> float:
        if held_s >= _SETTLED_S:
            self._next_s = _FIRST_S
            return 0.0
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_S)
        return wait_s
