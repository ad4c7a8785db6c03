"""Servers for the client to ask."""

import socket

import pytest

from tests.service import conftest as service

# Fixtures of others, lent to the tests of this folder.
models, pictures, run, start_edge = service.models, service.pictures, service.run, service.start_edge
eventually, failure_of, start_server = service.eventually, service.failure_of, service.start_server
callers, fetch = service.callers, service.fetch


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
