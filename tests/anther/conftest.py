"""Servers for the client to ask."""

from tests.service import conftest as service

# Fixtures of others, lent to the tests of this folder.
models, pictures, run, start_edge = service.models, service.pictures, service.run, service.start_edge
eventually, failure_of, start_server = service.eventually, service.failure_of, service.start_server
callers, fetch = service.callers, service.fetch
