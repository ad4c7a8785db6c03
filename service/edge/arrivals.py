"""Messages on their way in: one budget of bytes for all of them, shared among callers, and a time limit for each.

A message takes room before it is read. What is not read stays with its sender, less one window of its stream.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.errors import ArrivalsFull, ArrivedTooSlowly

T = TypeVar("T")

_TICK_S = 1.0  # how late a message may be found to be late
_SAFE_S = 10.0  # so long no message gives way to a caller who has less
_TRIALS, _TRIAL_S = 4, 0.1  # messages beyond the budget, which must be there almost at once
_RETRY_S = 1.0


class _Arrival:
    """One message. `refusal` is why its reading was ended."""

    __slots__ = ("began", "caller", "refusal", "size", "task", "trial", "turn")

    def __init__(self, caller: str, size: int, now: float) -> None:
        self.caller, self.size, self.began = caller, size, now
        self.task = asyncio.current_task()
        self.turn: asyncio.Future[None] | None = None
        self.trial: asyncio.TimerHandle | None = None
        self.refusal: ArrivalsFull | ArrivedTooSlowly | None = None


class Arrivals:
    """A caller may hold as much as is still free, so one alone leaves half, and a newcomer finds room.

    Who finds none waits, and the one who holds least goes first. Four in line at a time are tried meanwhile: what has
    come already is read at once, and what has not is refused. So a caller's slow messages do not hold up quick ones.
    """

    def __init__(self, total: int, limit_s: float) -> None:
        self._total, self._limit_s = total, limit_s
        self._used = 0
        self._held: dict[str, int] = {}  # bytes of each caller; a Counter would cost a microsecond more
        self._reading: dict[_Arrival, None] = {}  # the oldest first
        self._waiting: dict[str, deque[_Arrival]] = {}
        self._trials = 0
        self._clock: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether any message is being read."""
        return bool(self._reading)

    async def receive(self, caller: str, size: int, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns: a message of at most `size` bytes. Raises `ArrivalsFull` or `ArrivedTooSlowly`."""
        loop = asyncio.get_running_loop()
        arrival = _Arrival(caller, size, loop.time())
        if caller in self._waiting or not self._fits(arrival):
            await self._in_turn(arrival, loop)
        else:
            self._take(arrival)
        if self._clock is None:
            self._clock = loop.call_later(_TICK_S, self._tick, loop)
        try:
            return await read()
        except asyncio.CancelledError:
            if (refusal := _refused(arrival)) is None:
                raise
            raise refusal from None
        finally:
            self._give(arrival, loop)

    def _fits(self, arrival: _Arrival) -> bool:
        used = self._used
        return not used or self._held.get(arrival.caller, 0) + arrival.size <= self._total - used

    def _holds(self, caller: str) -> int:
        return self._held.get(caller, 0)

    def _take(self, arrival: _Arrival) -> None:
        self._reading[arrival] = None
        if arrival.trial is None:
            self._used += arrival.size
            self._held[arrival.caller] = self._held.get(arrival.caller, 0) + arrival.size

    def _give(self, arrival: _Arrival, loop: asyncio.AbstractEventLoop) -> None:
        del self._reading[arrival]
        arrival.task = None  # which holds the coroutine that holds this
        if arrival.trial is not None:
            arrival.trial.cancel()
            self._trials -= 1
        else:
            self._used -= arrival.size
            left = self._held.pop(arrival.caller) - arrival.size
            if left:
                self._held[arrival.caller] = left
        if self._waiting:
            self._serve(loop)

    async def _in_turn(self, arrival: _Arrival, loop: asyncio.AbstractEventLoop) -> None:
        """Wait in line. On return the arrival has room, or is on trial."""
        turn = arrival.turn = loop.create_future()
        self._waiting.setdefault(arrival.caller, deque()).append(arrival)
        self._make_room_for(arrival)
        self._serve(loop)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave_line(arrival)
                raise
            refusal = _refused(arrival)  # where the loop was so busy that the trial was over before it began
            self._give(arrival, loop)
            if refusal is None:
                raise
            raise refusal from None
        arrival.began = loop.time()

    def _leave_line(self, arrival: _Arrival) -> None:
        """Where `_serve` has not found out yet that its caller is gone."""
        line = self._waiting.get(arrival.caller, deque())
        if arrival in line:
            line.remove(arrival)
            if not line:
                del self._waiting[arrival.caller]

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let in who fits, those first who hold least; then try the next ones."""
        for caller in sorted(self._waiting, key=self._holds):
            line = self._waiting[caller]
            while line and (self._fits(line[0]) or self._trials < _TRIALS):
                arrival = line.popleft()
                assert arrival.turn is not None
                if arrival.turn.done():  # cancelled just now
                    continue
                if not self._fits(arrival):
                    self._trials += 1
                    arrival.trial = loop.call_later(_TRIAL_S, self._end_trial, arrival, loop)
                self._take(arrival)
                arrival.turn.set_result(None)
            if not line:
                del self._waiting[caller]

    def _end_trial(self, arrival: _Arrival, loop: asyncio.AbstractEventLoop) -> None:
        """Not at once: a busy loop hears of the time before it hears of the message."""
        arrival.trial = loop.call_later(_TRIAL_S / 10, self._refuse, arrival, self._full())

    def _make_room_for(self, newcomer: _Arrival) -> None:
        """End the oldest message of the caller who holds most, where the newcomer's holds less and it had its time."""
        most = max(self._held, key=self._holds, default=newcomer.caller)
        if self._holds(most) <= self._holds(newcomer.caller) + newcomer.size:
            return
        oldest = next(each for each in self._reading if each.caller == most and each.trial is None)
        if oldest.refusal is None and newcomer.began - oldest.began >= _SAFE_S:
            self._refuse(oldest, self._full())

    def _full(self) -> ArrivalsFull:
        return ArrivalsFull(self._used, self._total, _RETRY_S)

    def _refuse(self, arrival: _Arrival, refusal: ArrivalsFull | ArrivedTooSlowly) -> None:
        if arrival.task is not None and arrival.refusal is None:
            arrival.refusal = refusal
            arrival.task.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what has taken too long to arrive."""
        latest = loop.time() - self._limit_s
        for arrival in self._reading:
            if arrival.began > latest:
                break
            self._refuse(arrival, ArrivedTooSlowly(self._limit_s))
        self._clock = loop.call_later(_TICK_S, self._tick, loop) if self._reading else None


def _refused(arrival: _Arrival) -> ArrivalsFull | ArrivedTooSlowly | None:
    """Why its task was cancelled here; None where somebody else did."""
    if arrival.refusal is None or arrival.task is None or arrival.task.uncancel() > 0:
        return None
    return arrival.refusal
