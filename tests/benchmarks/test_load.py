"""The endless load ends when its time is over."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from pathlib import Path
from benchmarks import load
from benchmarks.subject import PHOTO, serving

with serving(Path("models").resolve(), PHOTO, int(sys.argv[1])) as server:
    with load.unending(server, PHOTO, 2) as (_, ends):
        time.sleep(1.0)
print(len(ends))
"""


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (Debian's nghttp2-client) is not installed")
def test_also_where_the_benchmark_is_a_background_job_of_a_shell() -> None:
    """Such a job ignores SIGINT, and so would h2load, which SIGINT ends."""
    done = subprocess.run(
        ["env", "--ignore-signal=INT", sys.executable, "-c", SCRIPT, str(_free_port())],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
