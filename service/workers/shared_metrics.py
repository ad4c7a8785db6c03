"""One page of metrics for several serving processes.

Each worker keeps its numbers in mapped files of a folder in memory (prometheus_client's multiprocess mode); whoever
answers a scrape adds the files up. A file belongs to a worker's slot, not to its process id: the next process in the
slot counts on where the last one was killed, and there are never more files than workers have kinds of metrics.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # as in `service.metrics`

# A mapped page of a file on a disk is now and then locked while it is written back, and every request with it.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own and is its user's alone

Pids = Callable[[], Mapping[str, int]]
"""Name of each process, as the label `worker` has it, and its process id."""


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A private folder for the workers' files, which ends with them."""
    parent = parent or (_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None)
    path = Path(tempfile.mkdtemp(prefix="anther-metrics-", dir=parent))
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """The last worker of a killed supervisor does this; all of them try."""
    shutil.rmtree(path, ignore_errors=True)


def join(path: Path, slot: int) -> None:
    """Count into the folder from now on. To be called before the first metric is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def leave(path: Path, slot: int) -> None:
    """Take a dead worker's gauges off the page; what it counted stays."""
    mark_process_dead(slot, str(path))  # type: ignore[no-untyped-call]


def page(path: Path, pids: Pids) -> CollectorRegistry:
    """All workers' metrics together, and what the system says of each process."""
    registry = CollectorRegistry()
    PlatformCollector(registry=registry)
    registry.register(_Processes(pids))
    registry.register(_Together(path))
    return registry


class _Together(MultiProcessCollector):
    def __init__(self, path: Path) -> None:
        super().__init__(None, str(path))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():  # type: ignore[no-untyped-call]
            family.samples = [sample for sample in family.samples if not math.isnan(sample.value)]
            if family.samples:
                yield family


class _Processes(Collector):
    """`process_*` for each process: a sum would fall when one dies, and every rate over it would show a peak."""

    def __init__(self, pids: Pids) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for worker, pid in self._pids().items():
            for family in ProcessCollector(pid=pid.__int__, registry=None).collect():
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                known.samples.extend(sample._replace(labels={"worker": worker}) for sample in family.samples)
        return families.values()
