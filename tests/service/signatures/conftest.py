"""A published version, and what somebody trusts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.repository import Bundle, Repository
from service.signatures.trust import Trust


@pytest.fixture
def version(tmp_path: Path, publish_bundle) -> Bundle:
    """flowers/1 in a folder of its own."""
    publish_bundle(tmp_path / "models")
    return Repository(tmp_path / "models").open("flowers", 1)


@pytest.fixture
def trusting(tmp_path: Path) -> Callable[[bytes], Trust]:
    """`trusting(pem)` reads the file that an operator names."""

    def read(pem: bytes) -> Trust:
        path = tmp_path / "trusted.pem"
        path.write_bytes(pem)
        return Trust.read(path)

    return read
