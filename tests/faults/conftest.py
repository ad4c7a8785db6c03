"""Servers to harm: a process that all tests share and that must come out of each unharmed, or one of a test's own."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundle import conftest as bundle
from tests.faults.victim import Victim, started
from tests.service import conftest as service

# Fixtures of others, lent to the tests of this folder.
small_files = bundle.small_files
models, pictures, run, start_edge = service.models, service.pictures, service.run, service.start_edge
eventually, failure_of = service.eventually, service.failure_of

StartVictim = Callable[..., Victim]


@pytest.fixture(scope="session")
def start_victim(models, tmp_path_factory) -> Iterator[StartVictim]:
    """`start_victim("--lanes", "1", models=…, errors=…)`: `anther serve` on free ports, ready to answer."""
    with contextlib.ExitStack() as stack:

        def start(*options: str, models: Path = models, errors: Path | None = None) -> Victim:
            errors = errors or tmp_path_factory.mktemp("server") / "stderr.txt"
            return stack.enter_context(started(models, errors, *options))

        yield start


@pytest.fixture(scope="session")
def shared_victim(start_victim: StartVictim) -> Victim:
    return start_victim("--lanes", "2")


@pytest.fixture
def victim(shared_victim: Victim, pictures: dict[str, bytes]) -> Iterator[Victim]:
    """The shared server; after the test it must answer right and have logged no error."""
    yield shared_victim
    shared_victim.prove(pictures)
