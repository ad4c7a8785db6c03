"""`make demo`: start a server on the embedded model, classify a drawn flower, print the answer, stop the server."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ANTHER = [sys.executable, "-m", "anther"]


def main() -> int:
    """Exit code of `anther classify`, or 1 where the server did not start."""
    command = [*ANTHER, "serve", "--models", "models", "--grpc-port", "0", "--ops-port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        banner = server.stdout.readline().strip()
        address = re.search(r"gRPC (\S+),", banner)
        if address is None:
            print("the server did not start; its last words stand above", file=sys.stderr)
            return 1
        print(f"{banner}\n")
        photos = [f"examples/{name}.jpg" for name in ("sunflowers", "daisy", "tulips")]
        answer = subprocess.run([*ANTHER, "classify", "--target", address[1], *photos], check=False, cwd=ROOT)
        print("\nServe it yourself:    .venv/bin/anther serve")
        print("Classify your photo:  .venv/bin/anther classify PHOTO.jpg")
        return answer.returncode
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    sys.exit(main())
