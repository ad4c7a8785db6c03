"""The committed protobuf code is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMITTED = [ROOT / "anther" / "v1", ROOT / "anther" / "open_inference"]


def sources(*folders: Path) -> dict[str, bytes]:
    paths = (path for folder in folders for path in folder.rglob("*.py*") if path.suffix in {".py", ".pyi"})
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed; it comes with anther[dev]")
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", folder], check=True, capture_output=True)
    return sources(folder / "v1", folder / "open_inference")


def test_every_service_is_generated(generated: dict[str, bytes]) -> None:
    for name in ("classifier_pb2.py", "classifier_pb2.pyi", "classifier_pb2_grpc.py"):
        assert f"v1/{name}" in generated


def test_the_committed_code_is_current(generated: dict[str, bytes]) -> None:
    """Byte for byte; `make proto` brings it up to date."""
    committed = sources(*COMMITTED)
    assert sorted(generated) == sorted(committed)
    assert [name for name in generated if generated[name] != committed[name]] == []
