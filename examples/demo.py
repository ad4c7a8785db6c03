"""`make demo`: start a server on the embedded model, classify drawn flowers, print the answers, stop the server."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ANTHER = [sys.executable, "-m", "anther"]
MODEL = "flowers"
PHOTOS = ["examples/sunflowers.jpg", "examples/daisy.jpg", "examples/tulips.jpg"]


def main() -> int:
    """Exit code of `anther classify`, or 1 where the server did not start."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--ops-port", "0"]
    command = [*ANTHER, "serve", "--models", "models", "--default-model", MODEL, *ports]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        try:
            assert server.stdout is not None
            banner = server.stdout.readline().strip()
            address = re.search(r"gRPC (\S+),", banner)
            if address is None:
                server.wait(30)
                log.seek(0)
                print(f"{log.read()}the server did not start", file=sys.stderr)
                return 1
            print(f"{banner}\n")
            ask = [*ANTHER, "classify", "--target", address[1], "--model", MODEL, *PHOTOS]
            answer = subprocess.run(ask, check=False, cwd=ROOT)
        finally:
            server.terminate()
            server.wait(30)
    if answer.returncode == 0:
        print_what_comes_next()
    return answer.returncode


def print_what_comes_next() -> None:
    """The command by its path, since nobody has activated the virtual environment."""
    anther = os.path.relpath(Path(sys.executable).with_name("anther"), ROOT)
    alone = {folder.name for folder in (ROOT / "models").iterdir() if folder.is_dir()} == {MODEL}
    default = "" if alone else f" --default-model {MODEL}"
    print(f"\nServe it yourself:          {anther} serve{default}")
    print(f"Ask from another terminal:  {anther} classify {PHOTOS[1]}")


if __name__ == "__main__":
    sys.exit(main())
