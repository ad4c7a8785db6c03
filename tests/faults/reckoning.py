"""What a server has counted and holds beside what its callers were told."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.flatness import flatness
from benchmarks.tally import Tally, quantile
from benchmarks.vitals import Vitals
from tests.faults.victim import Victim

# How much more the server may hold at the end than in the middle.
MEMORY_BYTES, MEMORY_SHARE, THREADS, DESCRIPTORS = 8e6, 0.05, 4, 4


@dataclass(frozen=True)
class Stand:
    """A server at one moment: the calls of one protocol and method by code, those of each caller's name by code."""

    codes: Counter[str]
    of_callers: dict[str, Counter[str]]
    inflight: float
    vitals: Vitals

    @classmethod
    def of(cls, victim: Victim, protocol: str, method: str) -> "Stand":
        codes, of_callers, inflight = Counter[str](), dict[str, Counter[str]](), 0.0
        for name, labels, value, *_ in victim.samples():
            if name == "anther_requests_total" and (labels["protocol"], labels["method"]) == (protocol, method):
                codes[labels["code"]] += int(value)
            if name == "anther_caller_requests_total":
                of_callers.setdefault(labels["caller"], Counter())[labels["code"]] += int(value)
            if name == "anther_inflight_requests":
                inflight += value
        return cls(codes, of_callers, inflight, victim.vitals())


@dataclass(frozen=True)
class Reckoning:
    """`tally` has a kind for each caller's name; `samples` are of the server, from the first call to the last."""

    calls: int
    tally: Tally
    samples: Sequence[Vitals]
    before: Stand
    after: Stand
    seconds: float

    def reasons(self) -> list[str]:
        """Why it is not as it must be."""
        return [*self._of_callers(), *self._of_counters(), *self._of_vitals()]

    def figures(self) -> dict[str, Any]:
        """Vitals are those of the middle, of the end, and once every caller has left."""
        moments = (self.samples[len(self.samples) // 2], self.samples[-1], self.after.vitals)
        taken = [seconds for each in self.tally.seconds.values() for seconds in each]
        return {
            "calls": self.calls,
            "callers": dict(self._told()),
            "server": dict(self.after.codes - self.before.codes),
            "wrong": self.tally.wrong.total(),
            "inflight": int(self.after.inflight),
            "memory_mb": [round(each.memory / 1e6, 1) for each in moments],
            "threads": [each.threads for each in moments],
            "descriptors": [each.descriptors for each in moments],
            "per_s": round(self.calls / self.seconds, 1),
            "p50_ms": round(1000 * quantile(taken, 0.5), 1),
            "p99_ms": round(1000 * quantile(taken, 0.99), 1),
            "cpu_ms": round(1000 * (self.after.vitals.cpu_s - self.before.vitals.cpu_s) / self.calls, 3),
            "examples": self.tally.examples,
        }

    def _told(self) -> Counter[str]:
        return sum(self.tally.counts.values(), Counter[str]())

    def _of_callers(self) -> Iterator[str]:
        if lost := self.calls - self._told().total():
            yield f"{lost} calls have not ended"
        yield from (f"{count} wrong answers to {name}" for name, count in self.tally.wrong.items())
        yield from (f"{count} unexpected ends ({end})" for end, count in self.tally.unexpected.items())

    def _of_counters(self) -> Iterator[str]:
        yield from _differences("the server", self.after.codes - self.before.codes, self._told())
        for name, told in self.tally.counts.items():
            counted = self.after.of_callers.get(name, Counter()) - self.before.of_callers.get(name, Counter())
            yield from _differences(name, counted, told)
        if self.after.inflight:
            yield f"{self.after.inflight:.0f} calls are counted as in flight when all have ended"

    def _of_vitals(self) -> Iterator[str]:
        later = self.samples[len(self.samples) // 2 :]
        held = {
            "memory": flatness([each.memory for each in later], MEMORY_BYTES, MEMORY_SHARE),
            "threads": flatness([each.threads for each in later], THREADS),
            "descriptors": flatness([each.descriptors for each in later], DESCRIPTORS),
        }
        yield from (f"{name} grew from {was.early:.0f} to {was.late:.0f}" for name, was in held.items() if not was.flat)
        was, found = self.before.vitals.descriptors, self.after.vitals.descriptors
        if found > was + DESCRIPTORS:
            yield f"{found} descriptors are open when all callers have left, {was} were before they came"


def _differences(of: str, counted: Counter[str], told: Counter[str]) -> Iterator[str]:
    """A call that its caller gave up on is counted as CANCELLED, as OK, or not at all where it never came."""
    answered, left = counted["OK"] - told["OK"], told["CANCELLED"]
    if not 0 <= answered <= left:
        yield f"{of}: {counted['OK']} calls counted as OK, where callers got {told['OK']} answers and gave up on {left}"
    if counted["CANCELLED"] > max(0, left - max(0, answered)):
        yield f"{of}: {counted['CANCELLED']} calls counted as CANCELLED and {answered} answers unread, of {left} left"
    if others := counted.keys() - {"OK", "CANCELLED"}:
        yield f"{of}: calls counted as {', '.join(sorted(others))}"
