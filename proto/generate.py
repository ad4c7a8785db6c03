"""Generate the committed Python code from the .proto files: `python proto/generate.py [FOLDER]`.

protoc writes absolute imports (`from anther.v1 import …`), which would meet `anther.py`; they are made to name the
package that the code really lives in. And it registers every message in one pool for the whole process, where the
standard protocol's names are taken as soon as another library brings its own copy, such as Triton's client; that
protocol's messages get a pool of their own.
"""

import re
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).parent
DEFAULT_FOLDER = SOURCES.parent / "service" / "rpc" / "pb"
_PACKAGES = "anther|inference"
_OTHERS_REGISTER_TOO = "inference"
_SHARED_POOL, _OWN_POOL = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"


def generate(folder: Path) -> list[Path]:
    """Write messages, stubs and type information below `folder`; returns the files written, sorted."""
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
    written = sorted(path for path in folder.rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"})
    for path in written:
        path.write_text(_placed(path.read_text(), path.relative_to(folder).parts[0]))
        for parent in path.relative_to(folder).parents:
            (folder / parent / "__init__.py").touch()
    return written


def _placed(text: str, package: str) -> str:
    """Generated code as it must read where it lives."""
    text = re.sub(rf"^from ({_PACKAGES})\b", r"from service.rpc.pb.\1", text, flags=re.MULTILINE)
    return text.replace(_SHARED_POOL, _OWN_POOL) if package == _OTHERS_REGISTER_TOO else text


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for generated in generate(target):
        print(generated)
