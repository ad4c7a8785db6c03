"""The worker's side of its pipes: one order in, reports out, and an end when the supervisor has ended."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import grpc
import pytest
from prometheus_client import values

from anther import Client
from anther.open_inference import open_inference_pb2 as oip
from anther.open_inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from service import logs
from service.config import Settings
from service.system.address import reserve
from service.workers import shared_metrics, worker
from service.workers.spawned import Order

PATIENCE_S = 60


@dataclass
class Supervisor:
    """The other ends of a worker's standard input and output, and everything that it was told."""

    orders: TextIO
    reports: TextIO
    start: Callable[[], None]
    """`worker.main`, in this process."""
    heard: list[dict[str, Any]] = field(default_factory=list)

    def give(self, order: Order) -> None:
        self.orders.write(f"{order.to_json()}\n")
        self.orders.flush()

    def hear(self, kind: str) -> Any:
        """The next report of that kind."""
        report: dict[str, Any] = {}
        while kind not in report:
            report = json.loads(self.reports.readline())
            self.heard.append(report)
        return report[kind]


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Supervisor]:
    """This process is a worker; afterwards it counts for itself again."""
    (stdin, orders), (reports, stdout) = os.pipe(), os.pipe()
    files = {"stdin": os.fdopen(stdin), "stdout": os.fdopen(stdout, "w"), "stderr": (tmp_path / "stderr").open("w")}

    def start() -> None:
        for name, file in files.items():
            monkeypatch.setattr(sys, name, file)
        worker.main()

    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(logs, "configure", lambda log_format: None)
    with os.fdopen(orders, "w") as to_worker, os.fdopen(reports) as from_worker:
        yield Supervisor(to_worker, from_worker, start)
    for file in files.values():
        file.close()


@pytest.fixture
def order(models: Path) -> Iterator[Order]:
    with reserve("127.0.0.1", 0, "--grpc-port") as reserved, shared_metrics.folder() as folder:
        port = reserved.getsockname()[1]
        yield Order(0, Settings(models=models, grpc_port=port, workers=2, lanes=1, grace_s=PATIENCE_S), folder)


def meanwhile(act: Callable[[], Any], supervisor: Supervisor) -> Any:
    """What `act` gives while this thread is the worker's main one."""
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        supervisor.start()
        return acting.result(PATIENCE_S)


def test_it_serves_as_ordered_and_reports_before_anyone_is_told(supervisor: Supervisor, order: Order, pictures) -> None:
    def act() -> str:
        try:
            supervisor.give(order)
            assert supervisor.hear("serving") == "flowers/1 on CPUExecutionProvider"
            with Client(f"127.0.0.1:{order.settings.grpc_port}") as client:
                return client.classify(pictures["roses"]).predictions[0].label
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert meanwhile(act, supervisor) == "roses"
    first, second = supervisor.heard
    assert (first["facts"]["live"]["ok"], first["facts"]["ready"]["ok"]) == (True, True)
    assert list(second) == ["serving"]
    assert {"counter_0.db", "histogram_0.db", "gauge_livesum_0.db"} <= {file.name for file in order.metrics.iterdir()}


def test_it_tells_news_or_else_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_REPORT_S", 0)
    states = iter(["serving", "serving", "serving", "draining", "draining", "serving"])
    told: list[Any] = []

    class App:
        def facts(self) -> str:
            return next(states)

    class Wire:
        clear = True

        def report(self, kind: str, what: Any) -> None:
            told.append((kind, what))

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(worker._tell(App(), Wire(), "serving"))  # type: ignore[arg-type]
    beat = ("beat", True)
    assert told == [beat, beat, beat, ("facts", "draining"), beat, ("facts", "serving")]


def test_it_rescans_the_folder_when_it_is_told_to(
    supervisor: Supervisor, order: Order, tmp_path: Path, publish_bundle
) -> None:
    publish_bundle(tmp_path)

    def act() -> dict[str, int]:
        try:
            supervisor.give(replace(order, settings=replace(order.settings, models=tmp_path, watch_s=0)))
            supervisor.hear("serving")
            publish_bundle(tmp_path)
            supervisor.orders.write("rescan\n")
            supervisor.orders.flush()
            return supervisor.hear("facts")["ready"]["models"]
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert meanwhile(act, supervisor) == {"flowers": 2}


def test_to_be_told_to_rescan_before_it_serves_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are read before the port is open, and what comes in between must not be missed."""
    reads, writes = os.pipe()
    rescanned = asyncio.Event()

    class App:
        rescan = staticmethod(rescanned.set)

    async def scenario() -> None:
        wire = worker.Wire(reads, writes)
        wire.watch()
        os.write(writes, b"rescan\n")
        await asyncio.sleep(0.05)
        heeding = asyncio.create_task(worker._heed(App(), wire))  # type: ignore[arg-type]
        await rescanned.wait()
        heeding.cancel()

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    os.close(reads)
    os.close(writes)
    assert rescanned.is_set()


def test_it_tells_of_a_clients_edit(supervisor: Supervisor, order: Order, tmp_path: Path, publish_bundle) -> None:
    publish_bundle(tmp_path)
    settings = replace(order.settings, models=tmp_path, control=True)

    def act() -> bool:
        try:
            supervisor.give(replace(order, settings=settings))
            supervisor.hear("serving")
            with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
                request = oip.RepositoryModelUnloadRequest(model_name="flowers")
                GRPCInferenceServiceStub(channel).RepositoryModelUnload(request, timeout=PATIENCE_S)
            return supervisor.hear("edited")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert meanwhile(act, supervisor) is True


def test_a_supervisor_that_reads_nothing_holds_up_nobody_and_misses_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may stand in a debugger for hours; then it hears the first that went unread, and what is true by then."""
    monkeypatch.setattr(worker, "_REPORT_S", 0)
    reads, writes = os.pipe()
    reports_made = 0

    class App:
        """So talkative that the pipe is full at once."""

        def facts(self) -> Any:
            nonlocal reports_made
            reports_made += 1
            return {"live": {"report": reports_made}, "ready": "x" * 50_000}

    async def read_until(number: int) -> list[int]:
        lines: list[int] = []
        while not lines or lines[-1] < number:
            lines.append(json.loads(await asyncio.to_thread(reports.readline))["facts"]["live"]["report"])
        return lines

    async def scenario() -> None:
        telling = asyncio.create_task(worker._tell(App(), worker.Wire(reads, writes), {}))  # type: ignore[arg-type]
        while reports_made < 1000:
            await asyncio.sleep(0)
        lines = await read_until(1000)
        assert lines[:2] == [1, 2]
        assert lines[2] >= 1000
        telling.cancel()

    with os.fdopen(reads) as reports:
        asyncio.run(asyncio.wait_for(scenario(), PATIENCE_S))
    os.close(writes)


def test_the_end_of_standard_input_ends_it_and_the_folder(supervisor: Supervisor, order: Order) -> None:
    def act() -> None:
        supervisor.give(order)
        supervisor.hear("serving")
        supervisor.orders.write("no order\n")
        supervisor.orders.flush()
        supervisor.reports.close()
        supervisor.orders.close()

    meanwhile(act, supervisor)
    assert not order.metrics.exists()


def test_a_report_to_nobody_is_no_error() -> None:
    """It comes between the supervisor's end and the moment when this is noticed."""
    reads, writes = os.pipe()
    os.close(reads)

    async def report() -> None:
        wire = worker.Wire(reads, writes)
        wire.report("facts", {})
        assert wire.clear

    asyncio.run(report())
    worker.Wire(reads, writes).report_end("failed", "no model")
    os.close(writes)


def test_without_an_order_it_does_nothing(supervisor: Supervisor) -> None:
    supervisor.orders.close()
    supervisor.start()
    assert supervisor.heard == []


def test_why_it_cannot_start_is_its_report(supervisor: Supervisor, order: Order, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    supervisor.give(replace(order, settings=replace(order.settings, models=tmp_path / "models")))
    with pytest.raises(SystemExit) as end:
        supervisor.start()
    assert end.value.code == 1
    assert supervisor.hear("failed").startswith(f"no model in {tmp_path / 'models'} can serve")
    assert order.metrics.exists()


def test_what_a_library_prints_is_no_report(supervisor: Supervisor, order: Order, tmp_path: Path) -> None:
    def act() -> None:
        supervisor.give(order)
        supervisor.hear("serving")
        os.write(sys.stdout.fileno(), b"printed by C code\n")
        os.kill(os.getpid(), signal.SIGTERM)

    meanwhile(act, supervisor)
    assert "printed by C code\n" in (tmp_path / "stderr").read_text()
    assert not any("printed" in str(report) for report in supervisor.heard)
