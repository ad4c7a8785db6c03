"""The commands of docs/client.md do what it says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.service.http.conftest import PATIENCE_S

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_command_of_curl_is_answered(start_web, tmp_path) -> None:
    web = start_web()
    page = (ROOT / "docs/client.md").read_text()
    blocks = [block for block in re.findall(r"^```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL) if "curl" in block]
    commands = sum(block.count("curl ") for block in blocks)
    assert commands >= 4
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    script = "".join(('set -e\ncurl() { command curl --fail --silent --show-error "$@"; }\n', *blocks))
    script = script.replace("localhost:8000", f"127.0.0.1:{web.server.port}")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE_S)
    assert (tmp_path / "why-daisy.png").read_bytes().startswith(b"\x89PNG")
    answered = web.sample("anther_requests_total", protocol="http", code="OK")
    assert answered == commands + 1, "one of them sends two files"
