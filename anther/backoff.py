"""How long to wait before the next try of what keeps failing."""

import random
from dataclasses import dataclass, field

_SETTLED_S = 10.0  # a process that ran for this long has not failed at its start


@dataclass(slots=True)
class Backoff:
    """`first_s` before the first new try, and twice as long before each further one, up to `longest_s`.

    `jitter`, 0 to 1, is the part of each wait that is random, so that many clients do not come back together.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    jitter: float = 0.0
    _next_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """After a success."""
        self._next_s = min(self.first_s, self.longest_s)

    def next_s(self) -> float:
        """Seconds to wait after a failure."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self.longest_s)
        return wait_s * (1 - self.jitter * random.random())  # noqa: S311 - no secret

    def after_run(self, held_s: float) -> float:
        """Seconds to wait after the end of a process that ran for `held_s`; none where it ran for 10 s or longer."""
        if held_s < _SETTLED_S:
            return self.next_s()
        self.reset()
        return 0.0
