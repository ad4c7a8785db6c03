"""One page over several processes: what adds up, what a death takes away, and what it must not."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values

from service.workers import shared_metrics

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to count into; this process counts for itself again afterwards."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with shared_metrics.folder(tmp_path) as path:
        yield path


@pytest.fixture
def sample(folder: Path) -> Callable[..., float | None]:
    page = shared_metrics.page(folder, dict)
    return lambda name, **labels: page.get_sample_value(name, labels)


class Process:
    """What one worker counts with; a second one in the same slot is its replacement."""

    def __init__(self, folder: Path, slot: int) -> None:
        shared_metrics.join(folder, slot)
        registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests", ["code"], registry=registry).labels("OK")
        self.seconds = Histogram("seconds", "Time", buckets=(0.1, 1.0), registry=registry)
        self.waiting = Gauge("waiting", "Queue", registry=registry, multiprocess_mode="livesum")
        self.ready = Gauge("ready", "Ready", ["version"], registry=registry, multiprocess_mode="livemin")


def test_counters_and_histograms_add_up(folder: Path, sample) -> None:
    for slot, (count, seconds) in enumerate([(3, 0.05), (4, 0.5)]):
        process = Process(folder, slot)
        process.requests.inc(count)
        process.seconds.observe(seconds)
    assert sample("requests_total", code="OK") == 7
    assert [sample("seconds_bucket", le=le) for le in ("0.1", "1.0", "+Inf")] == [1, 2, 2]
    assert sample("seconds_sum") == 0.55


def test_gauges_follow_their_meaning_and_carry_no_process_id(folder: Path, sample) -> None:
    for slot in range(2):
        process = Process(folder, slot)
        process.waiting.set(5 + slot)
        process.ready.labels("1").set(slot)
    assert sample("waiting") == 11
    assert sample("ready", version="1") == 0


def test_a_dead_workers_counts_stay_and_its_gauges_go(folder: Path, sample) -> None:
    for slot in range(2):
        process = Process(folder, slot)
        process.requests.inc(10)
        process.seconds.observe(0.05)
        process.waiting.set(5)
        process.ready.labels("1").set(slot)
    shared_metrics.leave(folder, 0)
    assert sample("requests_total", code="OK") == 20
    assert sample("seconds_count") == 2
    assert sample("waiting") == 5
    assert sample("ready", version="1") == 1


def test_a_replacement_counts_on_in_the_same_files(folder: Path, sample) -> None:
    """However often a worker dies, a scrape reads as many files as before."""
    Process(folder, 0).requests.inc(10)
    files = sorted(folder.iterdir())
    for deaths in range(1, 4):
        shared_metrics.leave(folder, 0)
        Process(folder, 0).requests.inc()
        assert sample("requests_total", code="OK") == 10 + deaths
    assert sorted(folder.iterdir()) == files


def test_what_is_not_a_number_is_not_shown(folder: Path, sample) -> None:
    """A series cannot be taken out of a file; a version that left service has this instead of a value."""
    process = Process(folder, 0)
    process.ready.labels("1").set(math.nan)
    process.ready.labels("2").set(1)
    assert sample("ready", version="1") is None
    assert sample("ready", version="2") == 1
    process.ready.labels("2").set(math.nan)
    process.waiting.set(0)
    assert b"ready" not in generate_latest(shared_metrics.page(folder, dict))


def test_every_process_has_its_own_cpu_and_memory(folder: Path) -> None:
    """Their sum would fall when one dies, and a rate over it would show a peak."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        page = shared_metrics.page(folder, lambda: {"supervisor": os.getpid(), "0": other.pid})
        for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
            assert None not in [page.get_sample_value(name, {"worker": worker}) for worker in ("supervisor", "0")]
        assert generate_latest(page).decode().count("# TYPE process_cpu_seconds_total counter") == 1
        other.communicate(b"\n")
    assert page.get_sample_value("process_resident_memory_bytes", {"worker": "0"}) is None
    assert page.get_sample_value("process_resident_memory_bytes", {"worker": "supervisor"}) is not None


def test_the_folder_is_private_in_memory_and_ends_with_its_owner() -> None:
    with shared_metrics.folder() as path:
        assert path.stat().st_mode & 0o777 == 0o700
        assert path.parent == Path("/dev/shm") or not os.access("/dev/shm", os.W_OK)
        (path / "counter_0.db").touch()
    assert not path.exists()
    shared_metrics.remove(path)  # as all workers of a killed supervisor do, each


def test_a_scrape_imports_neither_grpc_nor_numpy() -> None:
    """What scrapes is the supervisor; it would only hold their memory."""
    heavy = {"grpc", "numpy", "PIL", "onnxruntime", "uvloop"}
    code = f"import sys, service.workers.supervisor_app; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "\n"
