"""How calls ended: counts by kind and code, what should not have happened, and how long the good ones took."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_EXAMPLES = 5  # of what went wrong; the first ones tell most


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a call or of an item of a stream. `wrong` says what is wrong with the answer, '' where nothing is."""

    code: str
    wrong: str = ""


class Tally:
    """Filled by several threads."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.wrong: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.examples: list[str] = []
        self._lock = threading.Lock()

    def add(self, kind: str, expected: frozenset[str], outcomes: Iterable[Outcome], seconds: float) -> None:
        """The outcomes of one call; its time counts where all of them are OK."""
        found = list(outcomes)
        with self._lock:
            for outcome in found:
                self._add(kind, expected, outcome)
            if all(outcome.code == "OK" for outcome in found):
                self.seconds[kind].append(seconds)

    def _add(self, kind: str, expected: frozenset[str], outcome: Outcome) -> None:
        self.counts[kind][outcome.code] += 1
        if outcome.wrong:
            self.wrong[kind] += 1
        if outcome.code not in expected:
            self.unexpected[f"{kind}: {outcome.code}"] += 1
        if (outcome.wrong or outcome.code not in expected) and len(self.examples) < _EXAMPLES:
            self.examples.append(f"{kind}: {outcome.code} {outcome.wrong}".rstrip())


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of all are below; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
