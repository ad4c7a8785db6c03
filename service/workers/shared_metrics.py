"""One page of metrics for several serving processes.

Each worker keeps its numbers in mapped files of a folder in memory (prometheus_client's multiprocess mode). A scrape
adds the files up. A file belongs to a worker's slot, not to its process id: the next process in the slot continues the
counts of the last one, and the number of files does not grow.
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

# While a mapped page of a file on a disk is written back it is locked, and every request waits for it.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own and is its user's alone

Pids = Callable[[], Mapping[str, int]]
"""Value of the label `worker` → process id."""


@contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A private folder for the workers' files, removed at the end."""
    parent = parent or (_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None)
    path = Path(tempfile.mkdtemp(prefix="anther-metrics-", dir=parent))
    try:
        yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Also called by the workers of a killed supervisor."""
    shutil.rmtree(path, ignore_errors=True)


def join(path: Path, slot: int) -> None:
    """Count into the folder from now on. Call it before the first metric is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def leave(path: Path, slot: int) -> None:
    """Remove a dead worker's gauges from the page; its counts stay."""
    mark_process_dead(slot, str(path))  # type: ignore[no-untyped-call]


def page(path: Path, pids: Pids) -> CollectorRegistry:
    """The sum of all workers' metrics, and the system's figures for each process."""
    registry = CollectorRegistry()
    PlatformCollector(registry=registry)
    registry.register(_ProcessMetrics(pids))
    registry.register(_SummedMetrics(path))
    return registry


class _SummedMetrics(MultiProcessCollector):
    def __init__(self, path: Path) -> None:
        super().__init__(None, str(path))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():  # type: ignore[no-untyped-call]
            family.samples = [sample for sample in family.samples if not math.isnan(sample.value)]
            if family.samples:
                yield family


class _ProcessMetrics(Collector):
    """`process_*` for each process: a sum would fall when one dies, and its rate would show a peak."""

    def __init__(self, pids: Pids) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for worker, pid in self._pids().items():
            for family in ProcessCollector(pid=pid.__int__, registry=None).collect():
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                merged.samples.extend(sample._replace(labels={"worker": worker}) for sample in family.samples)
        return families.values()
