"""gRPC serves with the poller that was chosen, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from service.system import poller

_SERVER = """
import asyncio
{choose}
import grpc

async def serve():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await server.stop(None)

asyncio.run(serve())
"""


def _log(choose: str, **environment: str) -> str:
    """What a process with a gRPC server writes to standard error."""
    inherited = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    return subprocess.run(
        [sys.executable, "-c", _SERVER.format(choose=choose)],
        env=inherited | environment, capture_output=True, text=True, check=True, timeout=60,
    ).stderr  # fmt: skip


def test_grpc_knows_the_choice() -> None:
    assert "unknown experiment" in _log("", GRPC_EXPERIMENTS="-no_such_poller").lower()
    assert "unknown experiment" not in _log("from service.system import poller; poller.choose()").lower()


def test_what_the_environment_asks_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_EXPERIMENTS", "tcp_rcv_lowat")
    poller.choose()
    assert os.environ["GRPC_EXPERIMENTS"] == "tcp_rcv_lowat"
    monkeypatch.delenv("GRPC_EXPERIMENTS")
    poller.choose()
    assert os.environ["GRPC_EXPERIMENTS"] == "-event_engine_listener"
