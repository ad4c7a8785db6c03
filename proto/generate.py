"""Generate the committed Python code from the .proto files: `python proto/generate.py [FOLDER]`.

The code lives in the package `anther`: `anther.v1` as protoc has it, and the Open Inference Protocol, protoc's
`inference`, as `anther.open_inference`. protoc registers every message in one pool for the whole process, where the
standard protocol's names are taken as soon as another library brings its own copy, such as Triton's client; that
protocol's messages get a pool of their own.
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).parent
PACKAGES = {"anther/v1": "v1", "inference": "open_inference"}
"""Folder of protoc's → folder below the package `anther`."""

DEFAULT_FOLDER = SOURCES.parent / "anther"
_OTHERS_REGISTER_TOO = "inference"
_SHARED_POOL, _OWN_POOL = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"


def generate(folder: Path) -> list[Path]:
    """Write messages, stubs and type information below `folder`; returns the files written, sorted."""
    with tempfile.TemporaryDirectory() as temporary:
        _run_protoc(Path(temporary))
        written = [
            _place(path, source, folder / target)
            for source, target in PACKAGES.items()
            for path in sorted((Path(temporary) / source).glob("*_pb2*.py*"))
        ]
    return sorted(written)


def _run_protoc(folder: Path) -> None:
    protos = sorted(SOURCES.rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={SOURCES}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={folder}",
        f"--pyi_out={folder}",
        f"--grpc_python_out={folder}",
        *map(str, protos),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed; its messages stand above")


def _place(path: Path, source: str, folder: Path) -> Path:
    """Write generated code as it must read where it lives."""
    text = re.sub(r"^from inference\b", "from anther.open_inference", path.read_text(), flags=re.MULTILINE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    target = folder / path.name
    target.write_text(text.replace(_SHARED_POOL, _OWN_POOL) if source == _OTHERS_REGISTER_TOO else text)
    return target


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for generated in generate(target):
        print(generated)
