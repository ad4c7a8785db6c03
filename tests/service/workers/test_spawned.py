"""What a supervisor makes of whatever a process does: with processes that are a few lines of Python."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from service.config import Settings
from service.errors import WorkerFailed
from service.workers import spawned as workers
from service.workers.spawned import Order, Worker

PATIENCE_S = 60


def test_an_order_arrives_as_it_was_given() -> None:
    settings = Settings(models=Path("some/models"), workers=2, grace_s=1.5, host="::1", log_format="json")
    order = Order(1, settings, Path("/dev/shm/x"))
    assert Order.from_json(order.to_json()) == order


class Script(Worker):
    """A worker that is a few lines of Python."""

    @classmethod
    async def run(cls, *lines: str, on_edit: Callable[[], None] = lambda: None) -> "Script":
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "\n".join(lines), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return cls(7, process, on_edit)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, PATIENCE_S))


def test_facts_are_the_last_that_were_reported() -> None:
    async def scenario() -> None:
        worker = await Script.run(
            """print('{"facts": {"live": {"ok": true, "n": 1}, "ready": {}}}')""",
            """print('{"facts": {"live": {"ok": true, "n": 2}, "ready": {"ok": true}}}')""",
            """print('{"serving": "flowers/1"}', flush=True)""",
            "input()",
        )
        assert worker.facts["live"] == {"ok": True, "state": "starting"}
        assert await worker.serving() == "flowers/1"
        assert worker.facts == {"live": {"ok": True, "n": 2}, "ready": {"ok": True}}
        assert worker.age_s() > 0
        worker.kill()
        assert await worker.ended() == "was killed by SIGKILL"
        assert worker.facts["live"] == worker.facts["ready"] == {"ok": False, "state": "ended"}
        worker.kill()
        worker.drain()

    play(scenario())


def test_a_worker_may_serve_nothing() -> None:
    """As long as every model is unloaded by its policy."""

    async def scenario() -> None:
        worker = await Script.run("""print('{"serving": ""}')""")
        assert await worker.serving() == ""
        assert await worker.ended() == "ended with exit code 0"

    play(scenario())


def test_a_worker_that_says_why_it_cannot_start_is_quoted() -> None:
    async def scenario() -> None:
        worker = await Script.run("""print('{"failed": "no model"}')""", "raise SystemExit(1)")
        with pytest.raises(WorkerFailed, match=r"^no model$"):
            await worker.serving()
        assert await worker.ended() == "could not start (no model)"

    play(scenario())


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
    ],
)
def test_a_worker_that_dies_at_its_start_fails_it(line: str, how: str) -> None:
    async def scenario() -> None:
        worker = await Script.run(line)
        with pytest.raises(WorkerFailed, match=f"^worker 7 {how} before it could serve"):
            await worker.serving()
        assert await worker.ended() == how

    play(scenario())


def test_a_worker_that_cannot_go_on_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        worker = await Script.run(
            """print('{"facts": {"live": {"ok": false, "state": "serving"}, "ready": {}}}', flush=True)""", "input()"
        )
        assert await worker.ended() == "was killed by SIGKILL"

    play(scenario())
    assert "cannot go on: {'ok': False, 'state': 'serving'}" in caplog.text


def test_ticks_since_the_last_report_are_counted_until_it_ends() -> None:
    async def scenario() -> None:
        worker = await Script.run(
            """print('{"facts": {"live": {"ok": true}, "ready": {}}}', flush=True)""",
            "input()",
            """print('{"serving": "flowers/1"}', flush=True)""",
            "input()",
            """print('{"beat": true}', flush=True)""",
            "input()",
        )
        go_on = worker._process.stdin
        assert go_on is not None
        while worker.facts["live"] != {"ok": True}:
            await asyncio.sleep(0)
        assert (worker.serves, worker.tick(), worker.tick()) == (False, 1, 2)
        go_on.write(b"\n")
        await worker.serving()
        assert worker.serves
        assert [worker.tick(), worker.tick(), worker.tick()] == [1, 2, 3]
        go_on.write(b"\n")
        while worker._silent_ticks:
            await asyncio.sleep(0)
        assert [worker.tick(), worker.tick()] == [1, 2]
        go_on.write(b"\n")
        assert await worker.ended() == "ended with exit code 0"
        assert (worker.tick(), worker.tick()) == (0, 0), "nobody is to be killed"

    play(scenario())


def test_it_can_be_told_to_rescan_and_tells_of_edits() -> None:
    async def scenario() -> None:
        edits: list[None] = []
        tell = """print('{"edited": true}') if input() == "rescan" else None"""
        worker = await Script.run(tell, on_edit=lambda: edits.append(None))
        worker.rescan()
        assert await worker.ended() == "ended with exit code 0"
        assert edits == [None]
        for _ in range(10):
            worker.rescan()

    play(scenario())


def test_an_early_hangup_is_kept_for_when_the_worker_can_heed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Service managers send it to all processes of a service, and one of them may just be starting."""
    shell = tmp_path / "python"
    shell.write_text('#!/bin/sh\nkill -HUP $$\nread order\necho \'{"serving": "flowers/1"}\'\n')
    shell.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(shell))

    async def scenario() -> None:
        worker = await workers.start(Order(1, Settings(), Path()), lambda: None)
        assert await worker.serving() == "flowers/1"
        assert await worker.ended() == "ended with exit code 0"

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    play(scenario())
    signal.signal(signal.SIGHUP, before)


def test_a_system_without_processes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerFailed, match=r"no process for worker 1 \(No such file or directory\)"):
        asyncio.run(workers.start(Order(1, Settings(), Path()), lambda: None))
